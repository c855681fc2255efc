"""Shares of clients in what is scarce: who asked, queues that serve clients in turn, turns of look-ups."""
