#!/usr/bin/env bash
# obstore 0.12.1: a missing object is the builtin FileNotFoundError; obstore's own NotFoundError is never raised.
#
# `obstore.exceptions` has NotFoundError beside AlreadyExistsError and PreconditionError, all of them BaseError. A
# good guess is that `except NotFoundError`, or `except BaseError`, catches a missing object. It does not: head()
# and get() raise the builtin FileNotFoundError, which is no BaseError. AlreadyExistsError does come as documented.
#
# Who meets this: whoever asks whether an object is there. The first miss is an error that nobody catches, and a
# handler of OSError for local files takes it for a missing file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet obstore==0.12.1
"$folder/venv/bin/python" - <<'PY'
import tempfile
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore


def raised(work: object) -> BaseException:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("no error")


with tempfile.TemporaryDirectory() as folder:
    for store in (MemoryStore(), LocalStore(Path(folder))):
        obstore.put(store, "there", b"1")
        for name in ("head", "get"):
            error = raised(lambda store=store, name=name: getattr(obstore, name)(store, "absent"))
            own = isinstance(error, (NotFoundError, BaseError))
            print(f"{type(store).__name__}.{name}: {type(error).__module__}.{type(error).__name__}, BaseError: {own}")
            assert type(error) is FileNotFoundError and not own, "a missing object is another error now"
        again = raised(lambda store=store: obstore.put(store, "there", b"2", mode="create"))
        print(f"{type(store).__name__}.put, create: {type(again).__module__}.{type(again).__name__}")
        assert isinstance(again, AlreadyExistsError) and isinstance(again, BaseError)
assert issubclass(NotFoundError, BaseError)
print("as described: except NotFoundError catches no missing object")
PY
