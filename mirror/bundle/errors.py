"""Failures of reading and writing bundles."""


class BundleError(Exception):
    """A bundle or an archive cannot be used. The message names the entry, if there is one, and the reason.

    `entry` is the entry's name in the archive, "" for the archive as a whole.
    """

    def __init__(self, message: str, entry: str = "") -> None:
        super().__init__(f"{shown(entry)}: {message}" if entry else message)
        self.entry = entry


def shown(name: str) -> str:
    """Return the name of an entry for a message: one line, no control characters, of bounded length."""
    text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name)
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"


class EntryRefused(BundleError):
    """An entry is unsafe or unknown to every format: a link, a device, a path that leaves the folder."""


class Damaged(BundleError):
    """The archive is cut short, or a checksum or a digest does not hold."""


class Unsupported(BundleError):
    """The archive is of a kind, or of a version, from which nothing can be kept."""
