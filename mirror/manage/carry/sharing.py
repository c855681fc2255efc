"""Blocks and files that the cache folder shares with another program's folder, so that no byte is copied.

A *reflink* shares blocks until one side writes: each has a file of its own, whatever the other does. A *hard
link* is one file with two names, so what changes it changes the blob that the cache has proven. A link is
made only where that takes a program of this very user:

- the file belongs to the user of this process, and neither its group nor others may write to it;
- it is a regular file, and the name that was linked is that of the file that was opened and is proven.

The storage of distribution is written once: a blob is moved to its digest when it is complete, and is only
removed after that, which leaves the cache's name. The blob store makes each of its files read-only, under
both names.
"""

import fcntl
import os
import stat
from pathlib import Path

# linux/fs.h: _IOW(0x94, 9, int)
FICLONE = 0x40049409

# Rights of group and others to write; an ACL that gives more shows in those of the group.
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def clone(source: int, target: int, size: int) -> bool:
    """Let an open file share all blocks of another one of `size` bytes; return whether that is possible."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:  # another file system, or one that cannot
        return False
    if os.fstat(target).st_size == size:
        return True
    os.ftruncate(target, size)  # the source has grown, or shrunk: its bytes are copied, and proven
    return False


def link(source: int, path: Path, name: Path, size: int) -> bool:
    """Give the open file at `path`, of `size` bytes, the further name `name`; return whether that is safe."""
    status = os.fstat(source)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size:
        return False
    if status.st_uid != os.geteuid() or status.st_mode & WRITABLE_BY_OTHERS:
        return False
    try:
        name.unlink(missing_ok=True)  # of an import that was killed
        os.link(path, name, follow_symlinks=False)
    except OSError:  # another file system, or one without hard links
        return False
    if os.path.samestat(os.lstat(name), status):
        return True
    name.unlink()
    return False
