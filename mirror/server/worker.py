"""A worker: the process that serves, from its fork to its end."""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from mirror.config.schema import Config
from mirror.metrics.multiprocess import MultiprocessMetrics
from mirror.server.worker_process import RETIRE, STOP, Announce, WorkerSpec, tune_garbage_collector
from mirror.service.service import Service
from mirror.store.errors import StoreError, reason_of
from mirror.system.descriptors import client_limit, grow_table
from mirror.system.sockets import AcceptBalancer
from mirror.util.log import bind_context, server_log
from mirror.util.terminal_log import printable
from mirror.web.serving.server import Listeners, serve


def run_worker(
    config: Config, spec: WorkerSpec, announce: Announce, load: Callable[[], Config] | None = None
) -> int:
    """Run a worker from its fork to its end; return the exit status.

    `announce` is called by an only worker, when it is the first. `load` reads the configuration again.
    """
    grow_table(client_limit(config.server.connections))  # before there are threads
    with server_log(config.log, threaded=True):
        if config.server.processes() > 1:
            bind_context(worker=spec.number)
        try:
            asyncio.run(_serve(config, spec, announce, load))
        except (StoreError, OSError, ValueError) as error:
            print(f"registry-mirror: {printable(reason_of(error))}", file=sys.stderr)
            return 1
        return 0


async def _serve(
    config: Config, spec: WorkerSpec, announce: Announce, load: Callable[[], Config] | None
) -> None:
    loop = asyncio.get_running_loop()
    alone = config.server.processes() == 1
    balancer = None if alone else AcceptBalancer(spec.counts, spec.number)
    row = None if spec.table is None else spec.table.row(spec.number)
    listeners = Listeners(
        spec.sockets,
        config.server.tls(),
        balancer,
        operations=spec.operations,
        row=row,
        load=load,
        admin=spec.admin,
        workers=(spec.folder, spec.number),
    )
    stop = asyncio.Event()
    loop.add_signal_handler(STOP, stop.set)
    loop.add_signal_handler(RETIRE, listeners.retire)
    loop.add_reader(spec.parent, partial(_stop_without_parent, spec.parent, stop))
    service = await Service.open(config, table=spec.table)

    def ready(addresses: Sequence[str]) -> None:
        if alone and spec.first:
            announce(config, addresses, service.folder)
        os.write(spec.ready, b"\n")
        os.close(spec.ready)

    tune_garbage_collector()
    try:
        metrics = MultiprocessMetrics(spec.folder, spec.number, service.statistics.families)
        await service.statistics.join_workers(metrics, periodically=not alone)
        await serve(service, config, ready, stop, listeners)
    finally:
        await service.close()


def _stop_without_parent(parent: int, stop: asyncio.Event) -> None:
    """Stop when the parent died without a signal: its successor needs the addresses."""
    asyncio.get_running_loop().remove_reader(parent)
    stop.set()
