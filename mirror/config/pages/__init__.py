"""Options of the pages for people who look after the mirror."""
