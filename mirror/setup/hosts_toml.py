"""Files hosts.toml, which containerd, nerdctl and Docker's containerd image store read for each registry."""

import tomlkit
from msgspec import Struct
from tomlkit.exceptions import TOMLKitError

from mirror.setup.plan import SetupError


class HostsFile(Struct, frozen=True):
    """The entry of a mirror in a hosts.toml. `ca` is the path of its CA, or None."""

    url: str
    capabilities: tuple[str, ...]
    ca: str | None = None

    def table(self) -> str:
        """Return the entry in TOML."""
        named = ", ".join(f'"{each}"' for each in self.capabilities)
        lines = [f'[host."{self.url}"]', f"  capabilities = [{named}]"]
        if self.ca is not None:
            lines.append(f'  ca = "{self.ca}"')
        return "\n".join(lines) + "\n"


def parsed(text: str, path: str) -> tomlkit.TOMLDocument:
    """Return a document. Raises SetupError with the name of a file that is not TOML."""
    try:
        return tomlkit.parse(text)
    except (TOMLKitError, ValueError) as error:
        raise SetupError(f"{path} is not TOML ({error}): mend it first; its client ignores it") from None


def hosts_text(text: str | None, entry: HostsFile, path: str) -> str:
    """Return the text of a hosts.toml with the mirror as its first host; everything else stays.

    containerd asks hosts in the order of the file.
    """
    if text is None or not text.strip():
        return entry.table()
    document = parsed(text, path)
    hosts = document.get("host")
    if hosts is not None and not isinstance(hosts, dict):
        raise SetupError(f"{path}: host is not a table: mend it first; containerd ignores the file")
    if hosts is not None and entry.url in hosts:
        if next(iter(hosts)) == entry.url and _is_equal(hosts[entry.url], entry):
            return text
        del hosts[entry.url]
        text = tomlkit.dumps(document)
    at = first_table(text)
    before, after = text[:at], text[at:]
    gap = "\n" if before.strip() and not before.endswith("\n\n") else ""
    return f"{before}{gap}{entry.table()}" + (f"\n{after}" if after.strip() else "")


def _is_equal(table: object, entry: HostsFile) -> bool:
    """Return whether a mirror's table says what `entry` says; it may say more."""
    if not isinstance(table, dict):
        return False
    return list(table.get("capabilities", [])) == list(entry.capabilities) and table.get("ca") == entry.ca


def first_table(text: str) -> int:
    """Return the offset of the first table, or of the comment right above it; the end if there is none."""
    offset, comment = 0, None
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        if bare.startswith("[") and _is_whole(text[:offset]):
            return offset if comment is None else comment
        starts_comment = bare.startswith("#") and comment is None
        comment = offset if starts_comment else comment if bare.startswith("#") else None
        offset += len(line)
    return len(text)


def _is_whole(text: str) -> bool:
    """Return whether a document may end here: not in the middle of a list or of a string."""
    try:
        tomlkit.parse(text)
    except (TOMLKitError, ValueError):
        return False
    return True
