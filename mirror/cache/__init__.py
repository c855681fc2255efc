"""Where disk and upstream meet: hits, flights, fills."""
