"""The text of a lease's holder at the coordinator. What others have written there is bounded and checked."""

import re
import secrets

from yarl import URL

from mirror.shared.interfaces import Holder

# The longest text of a holder: a longer value under a lease's key is not one of ours.
MAX_BYTES = 512

_OWNER = re.compile(r"[0-9a-f]{32}")
# Host or bracketed IPv6 address, and port, as a URL has them.
_ADDRESS = re.compile(r"(https?://([A-Za-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\]):[0-9]{1,5})?")


def new_holder(address: str = "") -> Holder:
    """Return the holder of a new claim. `address`: the URL of the mirror's listener for its peers."""
    return Holder(secrets.token_hex(16), address)


def format_holder(holder: Holder) -> str:
    """Return a holder as text without line breaks."""
    return f"{holder.owner} {holder.address}"


def parse_holder(text: bytes) -> Holder | None:
    """Return the holder that `text` names; None for anything else."""
    if len(text) > MAX_BYTES:
        return None
    owner, _, address = text.decode("ascii", "replace").partition(" ")
    if _OWNER.fullmatch(owner) is None or _ADDRESS.fullmatch(address) is None:
        return None
    return Holder(owner, address) if _is_url(address) else None


def _is_url(address: str) -> bool:
    """Return whether a client may be made of an address: not of port 99999, nor of wrong punycode."""
    try:
        _ = URL(address).host
    except ValueError:
        return False
    return True
