"""Plain lists of images: one a line, with comments after `#`; pure."""

from mirror.manage.warm.listed import Listed, ListEntry


def read_plain(text: str, name: str) -> Listed:
    """Return the entries of a plain list."""
    found = Listed()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if words:
            found.entries.append(ListEntry(words, f"{name}:{number}"))
    return found
