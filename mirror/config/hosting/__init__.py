"""Options of what is pushed to this mirror, and kept here."""
