"""Links for the event loop, and the content that a link opens."""
