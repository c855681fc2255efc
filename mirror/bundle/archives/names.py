"""Names of entries: relative paths without tricks."""

from mirror.bundle.errors import EntryRefused

# PATH_MAX of Linux.
LONGEST = 4096


def safe_name(raw: bytes) -> str:
    """Return the name of an entry without a leading `./` and a trailing slash, "" for the top folder.

    Raises EntryRefused for absolute paths, `..`, empty parts, backslashes, control characters, and for bytes
    that are not UTF-8.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise EntryRefused("the name is not UTF-8", raw.decode("utf-8", "replace")) from None
    if len(raw) > LONGEST:
        raise EntryRefused(f"the name is longer than {LONGEST} bytes", text)
    if text.startswith("/"):
        raise EntryRefused("the name is an absolute path", text)
    if not text.isprintable() or "\\" in text:
        raise EntryRefused("the name has control characters or backslashes", text)
    name = text
    while name.startswith("./"):
        name = name[2:]
    name = "" if name == "." else name.removesuffix("/")
    parts = name.split("/")
    if ".." in parts:
        raise EntryRefused("the name leaves the folder of the archive", text)
    if name and ("" in parts or "." in parts):
        raise EntryRefused("the name has empty parts", text)
    return name
