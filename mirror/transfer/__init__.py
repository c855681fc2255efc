"""How bytes come: flights, fills, downloads, the planner, and other processes' fills."""
