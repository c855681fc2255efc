"""Private content: what not all clients may have, by the word of its upstream."""
