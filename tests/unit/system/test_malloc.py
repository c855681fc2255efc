"""malloc tuning: buffers are reused, and free memory is returned to the system."""

import subprocess
import sys
from pathlib import Path

import pytest

from mirror.system.malloc import ARENAS

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


ARENAS_OF_THREADS = """
import asyncio, ctypes, sys
from threading import Barrier, Thread

if sys.argv[2] == "limited":
    from mirror.system.malloc import limit_arenas
    limit_arenas()
if sys.argv[2] == "service":
    from mirror.service.service import Service
    from tests.running import configured
    from pathlib import Path

    async def begin() -> None:
        service = await Service.open(configured(Path(sys.argv[1]), {"hub.test": "http://127.0.0.1:9"}))
        await service.close()

    asyncio.run(begin())
together = Barrier(8)

def allocate() -> None:
    together.wait()
    blocks = [bytearray(2000) for _ in range(50)]
    together.wait()

threads = [Thread(target=allocate) for _ in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode() + b"/malloc.xml", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(open(sys.argv[1] + "/malloc.xml").read().count("<heap nr="))
"""


@pytest.mark.parametrize("kind", ["default", "limited", "service"])
def test_threads_share_few_arenas(kind: str, tmp_path: Path) -> None:
    """A process of its own has as many as it allows, and its threads would have more."""
    command = [sys.executable, "-c", ARENAS_OF_THREADS, str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (int(done.stdout) > ARENAS) is (kind == "default")
