"""Options of what several mirrors share."""
