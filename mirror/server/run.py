"""The `serve` command: run one process, or a supervisor and its workers."""

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
from typing import Protocol

from mirror.config.loader import ConfigError, environment
from mirror.config.schema import Config
from mirror.metrics.multiprocess import MultiprocessMetrics
from mirror.server.supervisor import RETIRE, STOP, Hooks, Supervisor, WorkerSpec
from mirror.service import Service
from mirror.store.cache_dir import CacheDirectory
from mirror.store.errors import StoreError, reason_of
from mirror.system.descriptors import raise_limit
from mirror.system.sd_notify import notify
from mirror.system.sockets import AcceptBalancer, ListeningSocket, bind_all, inherited_sockets
from mirror.system.terminal import Terminal
from mirror.util.log import bind_context, get_logger, server_log
from mirror.util.tasks import Tasks
from mirror.util.terminal_log import printable
from mirror.util.tls import renew
from mirror.web.app import Listeners, serve

log = get_logger(__name__)


class Announce(Protocol):
    """Says that the mirror is ready. `folder` is the cache folder, if this process has it open."""

    def __call__(
        self, config: Config, addresses: Sequence[str], folder: CacheDirectory | None = None
    ) -> None: ...


def run(config: Config, load: Callable[[], Config], announce: Announce) -> int:
    """Serve until a signal ends it; return the exit status.

    `load` reads the configuration again and raises ConfigError. `announce` is called with the addresses when
    the mirror is ready. Raises StoreError and OSError with the reason why the mirror cannot start.
    """
    raise_limit()
    sockets = inherited_sockets()
    if config.server.processes() == 1:
        sockets = sockets or bind_all(config.server.listen)
        operations = bind_all(config.server.operations_listen)
        with server_log(config.log, threaded=True):
            asyncio.run(_run_single(config, sockets, operations, load, announce))
        return 0
    folder = environment().get("RUNTIME_DIRECTORY") or None
    _tune_garbage_collector()  # before the forks, which share what is exempt
    with (
        tempfile.TemporaryDirectory(prefix="registry-mirror-", dir=folder) as private,
        server_log(config.log, threaded=False),
    ):
        return Supervisor(config, Hooks(load, _run_worker, announce), sockets, Path(private)).run()


async def _run_single(
    config: Config,
    sockets: Sequence[ListeningSocket],
    operations: Sequence[ListeningSocket],
    load: Callable[[], Config],
    announce: Announce,
) -> None:
    listeners = Listeners(sockets, config.server.tls(), operations=operations)
    stop, tasks, loop = asyncio.Event(), Tasks(), asyncio.get_running_loop()
    terminal, seconds = Terminal(), config.server.shutdown_timeout
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_stop, number, stop, seconds)

    def on_hangup() -> None:
        if not terminal.has_hung_up():
            tasks.spawn(_reload(config, load, listeners.tls), name="reload")
        elif not stop.is_set():  # the kernel and the shell both send the signal
            _on_stop(signal.SIGHUP, stop, seconds)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)

    service = await Service.open(config)

    def ready(addresses: Sequence[str]) -> None:
        announce(config, addresses, service.folder)
        notify("READY=1")

    _tune_garbage_collector()
    try:
        await serve(service, config, ready, stop, listeners)
    finally:
        await tasks.close()
        await service.close()


def _tune_garbage_collector() -> None:
    """Exempt all present objects from collection, and collect less often; nothing was collected before.

    At Python's own threshold (700 new objects) the collector takes an eighth of the processor time of small
    fills.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def _on_stop(number: int, stop: asyncio.Event, seconds: float) -> None:
    """Drain at the first SIGTERM or SIGINT; end the process at once at the second."""
    if stop.is_set():
        os._exit(128 + number)  # fills resume from their chunk maps at the next start
    notify("STOPPING=1")
    log.info("stopping; a second signal ends the mirror at once", at_most_seconds=seconds)
    stop.set()


async def _reload(config: Config, load: Callable[[], Config], tls: ssl.SSLContext | None) -> None:
    """Renew the certificate for later connections. Everything else is read once, at the start."""
    try:
        new = await asyncio.to_thread(load)
        key = new.server.tls_key
        if tls is not None and new.server.tls_certificate is not None and key is not None:
            await asyncio.to_thread(renew, tls, new.server.tls_certificate, key)
            log.info("certificate reloaded")
        elif new == config:
            log.info("reload: nothing to do, the configuration has not changed and there is no certificate")
    except (ConfigError, ValueError, OSError) as error:
        log.error("new configuration unusable, the old one stays in effect", reason=reason_of(error))
        return
    if new != config:
        log.warning("configuration changed: restart to apply it (with server.workers of 2 or more, reload)")


def _run_worker(config: Config, spec: WorkerSpec) -> int:
    """Run a worker from its fork to its end; return the exit status."""
    with server_log(config.log, threaded=True):
        bind_context(worker=spec.number)
        try:
            asyncio.run(_serve(config, spec))
        except (StoreError, OSError, ValueError) as error:
            print(f"registry-mirror: {printable(reason_of(error))}", file=sys.stderr)
            return 1
        return 0


async def _serve(config: Config, spec: WorkerSpec) -> None:
    loop = asyncio.get_running_loop()
    balancer = AcceptBalancer(spec.counts, spec.number)
    listeners = Listeners(spec.sockets, config.server.tls(), balancer, operations=spec.operations)
    stop = asyncio.Event()
    loop.add_signal_handler(STOP, stop.set)
    loop.add_signal_handler(RETIRE, listeners.retire_requested.set)
    loop.add_reader(spec.parent, partial(_stop_without_parent, spec.parent, stop))
    service = await Service.open(config)
    _tune_garbage_collector()
    try:
        await service.join_workers(MultiprocessMetrics(spec.folder, spec.number, service.metric_families))
        await serve(service, config, lambda _: _report_ready(spec.ready), stop, listeners)
    finally:
        await service.close()


def _report_ready(ready: int) -> None:
    os.write(ready, b"\n")
    os.close(ready)


def _stop_without_parent(parent: int, stop: asyncio.Event) -> None:
    """Stop when the parent died without a signal: its successor needs the addresses."""
    asyncio.get_running_loop().remove_reader(parent)
    stop.set()
