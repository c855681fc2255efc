"""`serve`: one process that does everything, or several and one that looks after them."""

import asyncio
import gc
import os
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mirror.config.loader import ConfigError, environment
from mirror.config.schema import Config
from mirror.metrics.multiprocess import MultiprocessMetrics
from mirror.server.supervisor import RETIRE, STOP, Hooks, Supervisor, WorkerSpec
from mirror.service import Service
from mirror.store.errors import StoreError
from mirror.system.sd_notify import notify
from mirror.system.sockets import AcceptBalancer, ListeningSocket, bind_all, inherited_sockets
from mirror.util.log import bind_context, configure, get_logger
from mirror.util.tasks import Tasks
from mirror.util.tls import renew
from mirror.web.app import Listeners, serve

log = get_logger(__name__)

Announce = Callable[[Config, Sequence[str]], None]


def run(config: Config, load: Callable[[], Config], announce: Announce) -> int:
    """Serve until told to stop; the exit status. StoreError and OSError say what keeps it from starting.

    `load` reads the configuration again, ConfigError; `announce` is told the addresses when it is ready.
    """
    sockets = inherited_sockets()
    if config.server.processes() == 1:
        sockets = sockets or bind_all(config.server.listen)
        asyncio.run(_alone(config, sockets, load, announce))
        return 0
    folder = environment().get("RUNTIME_DIRECTORY") or None
    with tempfile.TemporaryDirectory(prefix="registry-mirror-", dir=folder) as private:
        return Supervisor(config, Hooks(load, _work, announce), sockets, Path(private)).run()


async def _alone(
    config: Config,
    sockets: Sequence[ListeningSocket],
    load: Callable[[], Config],
    announce: Announce,
) -> None:
    listeners = Listeners(sockets, config.server.tls())
    stop, tasks, loop = asyncio.Event(), Tasks(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_stop, number, stop)
    loop.add_signal_handler(
        signal.SIGHUP, lambda: tasks.spawn(_reload(config, load, listeners.tls), name="reload")
    )

    def ready(addresses: Sequence[str]) -> None:
        announce(config, addresses)
        notify("READY=1")

    service = await Service.open(config)
    _tune_garbage_collector()
    try:
        await serve(service, config, ready, stop, listeners)
    finally:
        await tasks.close()
        await service.close()


def _tune_garbage_collector() -> None:
    """What is here now stays, so the collector need not look at it again; and it comes less often.

    At Python's own threshold (700 new objects) it takes an eighth of the processor time of small fills.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _on_stop(number: int, stop: asyncio.Event) -> None:
    """The first SIGTERM or SIGINT drains; the second ends the process where it stands."""
    if stop.is_set():
        os._exit(128 + number)  # fills resume from their maps at the next start
    notify("STOPPING=1")
    log.info("stopping: finishing what is being sent, again to end at once")
    stop.set()


async def _reload(config: Config, load: Callable[[], Config], tls: ssl.SSLContext | None) -> None:
    """Renew the certificate for the connections to come. Everything else is made once, at the start."""
    try:
        new = await asyncio.to_thread(load)
        key = new.server.tls_key
        if tls is not None and new.server.tls_certificate is not None and key is not None:
            await asyncio.to_thread(renew, tls, new.server.tls_certificate, key)
            log.info("certificate reloaded")
    except (ConfigError, ValueError, OSError) as error:
        log.error("the new configuration cannot be used, going on with the old one", reason=str(error))
        return
    if new != config:
        log.warning("what else has changed needs a restart, or server.workers of 2 or more from the start")


def _work(config: Config, spec: WorkerSpec) -> int:
    """A worker's life."""
    configure(config.log, sys.stderr)
    bind_context(worker=spec.number)
    try:
        asyncio.run(_serve(config, spec))
    except (StoreError, OSError, ValueError) as error:
        print(f"registry-mirror: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(config: Config, spec: WorkerSpec) -> None:
    loop = asyncio.get_running_loop()
    listeners = Listeners(spec.sockets, config.server.tls(), AcceptBalancer(spec.counts, spec.number))
    stop = asyncio.Event()
    loop.add_signal_handler(STOP, stop.set)
    loop.add_signal_handler(RETIRE, listeners.retire_requested.set)
    loop.add_reader(spec.parent, partial(_orphaned, spec.parent, stop))
    service = await Service.open(config)
    _tune_garbage_collector()
    try:
        await service.join_workers(MultiprocessMetrics(spec.folder, spec.number, service.metric_families))
        await serve(service, config, lambda _: _tell(spec.ready), stop, listeners)
    finally:
        await service.close()


def _tell(ready: int) -> None:
    os.write(ready, b"\n")
    os.close(ready)


def _orphaned(parent: int, stop: asyncio.Event) -> None:
    """The parent is gone without a word; the next one needs the listening sockets."""
    asyncio.get_running_loop().remove_reader(parent)
    stop.set()
