"""Content from disk or upstream: hits, flights, fills."""
