"""Tag entries: how long they are used, and what is answered once they are not fresh."""
