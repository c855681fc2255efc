#!/usr/bin/env bash
# redis-py 8.1.0: each new connection of redis.asyncio reads the files of installed packages, in the event loop.
#
# A connection tells the server the library's name and version (CLIENT SETINFO). A good guess is that the version
# is a constant, or looked up once. The constructor of each connection calls importlib.metadata.version("redis"),
# which lists the folders of sys.path and opens and parses METADATA: blocking calls, in the event loop, for every
# connection of a pool and again whenever one is made anew after an outage.
#
# Who meets this: whoever runs under a check for blocking calls (blockbuster raises BlockingError at the first
# command), or has site-packages on a slow or network disk. `driver_info=None` avoids it, and CLIENT SETINFO too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet redis==8.1.0
"$folder/venv/bin/python" - <<'PY'
import asyncio
import sys

from redis.asyncio import Connection

opened = []
sys.addaudithook(
    lambda event, args: opened.append(args[0]) if event == "open" and str(args[0]).endswith("METADATA") else None
)


async def connections(**options: object) -> int:
    """Make ten connection objects; return how many METADATA files were opened meanwhile."""
    opened.clear()
    for _ in range(10):
        Connection(host="127.0.0.1", port=9, **options)
    return len(opened)


default, without = asyncio.run(connections()), asyncio.run(connections(driver_info=None))
print(f"ten connections, by default:        {default} METADATA files opened in the event loop")
print(f"ten connections, driver_info=None:  {without}")
assert default == 10, "the version is looked up less often now"
assert without == 0
print("as described: one file for each connection")
PY
