"""Whether what comes is worth waiting for; pure.

An answer that drips, a byte now and then, keeps every timeout that is about silence from running out, and
never ends. So there is a least that it has to bring. Others who end what is slower: cargo below 10 bytes a
second for 30 s, dnf below 1000 for 30 s, pacman below 1 for 10 s. They begin anew then; here what came is
kept, and asking again costs a round trip. So the least may be as much as is left to each of twenty
connections that share a line of 20 kB/s.
"""

# In bytes a second.
SLOWEST = 1024


class LowSpeedLimit:
    """Of one body: each `SLOWEST` bytes for each of so many seconds have to come within as many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._came = 0
        self._waited = 0.0

    def came(self, length: int, waited: float) -> bool:
        """`length` bytes came after `waited` seconds of waiting; whether that is enough."""
        self._came += length
        self._waited += waited
        if self._came >= SLOWEST * self._seconds:
            self._came, self._waited = 0, 0.0
        return self._waited <= self._seconds


def made_progress(length: int, seconds: float) -> bool:
    """Whether an attempt that brought so much in so long is one to go on from as if it had not failed."""
    return length >= SLOWEST * max(seconds, 1.0)
