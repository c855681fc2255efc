"""Entries of a list of images, and what of a list is not taken; pure."""

from msgspec import Struct, field


class ListEntry(Struct, frozen=True):
    """The name of an image as a list has it, and its place: `images.txt:3`."""

    text: str
    place: str


class Note(Struct, frozen=True):
    """A part of a list that is not taken, with the reason. `wrong`: so an image may be missing."""

    place: str
    reason: str
    wrong: bool = True

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


class Listed(Struct):
    """The entries of lists, and the notes about what is not taken."""

    entries: list[ListEntry] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def add(self, other: "Listed") -> None:
        """Add the entries and notes of another list."""
        self.entries += other.entries
        self.notes += other.notes


class ListError(Exception):
    """A list that cannot be read at all; the message says what to do."""
