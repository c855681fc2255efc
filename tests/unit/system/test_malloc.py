"""malloc tuning: buffers are reused, and free memory is returned to the system."""

import subprocess
import sys

PROGRAM = """
from mirror.system.malloc import trim_heap, keep_buffers

def resident() -> int:
    # Not VmRSS of /proc/self/status: the kernel counts that in batches for each processor.
    with open("/proc/self/smaps_rollup") as mappings:
        return next(int(line.split()[1]) for line in mappings if line.startswith("Rss"))

before = resident()
for _ in range(3):
    keep_buffers()
assert resident() - before < 1024, "what is asked for again costs memory"
pinned = []
for _ in range(20):  # small blocks between large ones, so that the heap cannot simply shrink
    large = bytearray(4 * 1024 * 1024)
    pinned.append(bytearray(200_000))
    del large
blocks = [bytearray(1024 * 1024) for _ in range(64)]
last = bytearray(1000)
del blocks
before = resident()
trim_heap()
print(before - resident())
"""


def test_trim_heap_returns_free_memory() -> None:
    """A process of its own returns more than 10 MiB of freed memory."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10 * 1024
