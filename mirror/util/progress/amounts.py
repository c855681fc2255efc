"""Progress of one image, as an operation yields it: bytes and items, done and in all; pure."""

from typing import Literal

from msgspec import Struct

# State of an image; the last three are results.
State = Literal["waiting", "running", "done", "present", "failed"]
RESULTS = frozenset({"done", "present", "failed"})


class ProgressAmount(Struct, frozen=True):
    """An amount that is `done`, of `total`; None for a total that is not known yet."""

    done: int = 0
    total: int | None = None

    @property
    def missing(self) -> int | None:
        """The amount that is to be done yet; None if that is not known."""
        return None if self.total is None else max(0, self.total - self.done)


class ImageProgress(Struct, frozen=True):
    """The progress of one image, or of another part of an operation that has a name.

    `bytes` and `items` (blobs and manifests) are those that the operation has to move; "present": there was
    nothing to move. `reason`: why it failed.
    """

    name: str
    bytes: ProgressAmount = ProgressAmount()
    items: ProgressAmount = ProgressAmount()
    state: State = "running"
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Return whether this is the result."""
        return self.state in RESULTS
