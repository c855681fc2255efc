"""The index: links, tags, referrers, and queries over them."""
