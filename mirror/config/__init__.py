"""The configuration: flags over environment over file over defaults."""
