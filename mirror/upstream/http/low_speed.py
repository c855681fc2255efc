"""Low-speed limit for bodies; pure.

An answer that drips, a byte now and then, never runs into a timeout for silence, and never ends. So there is
a least speed, as curl has it (`--speed-limit`, `--speed-time`). Other clients end what is slower: cargo below
10 bytes a second for 30 s, dnf below 1000 for 30 s, pacman below 1 for 10 s. They start again from zero; here
the bytes are kept, and a retry costs one round trip. So the limit may be as high as the share of each of
twenty connections on a line of 20 kB/s.
"""

# Least speed, in bytes a second.
MIN_SPEED = 1024


class LowSpeedLimit:
    """Limit for one body: `MIN_SPEED` bytes a second on average over each `seconds` of waiting."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._received = 0
        self._waited = 0.0

    def allows(self, length: int, waited: float) -> bool:
        """Count `length` bytes that came after `waited` seconds; return False if the body is too slow."""
        self._received += length
        self._waited += waited
        if self._received >= MIN_SPEED * self._seconds:
            self._received, self._waited = 0, 0.0
        return self._waited <= self._seconds


def made_progress(length: int, seconds: float) -> bool:
    """Return True if an attempt that brought `length` bytes in `seconds` does not count as a failure."""
    return length >= MIN_SPEED * max(seconds, 1.0)
