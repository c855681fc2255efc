"""Pages for people who look after the mirror, and the API behind them, on a listener of their own."""
