"""Options of traces."""
