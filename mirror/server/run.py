"""The `serve` command: a parent that holds the sockets, and the workers that it starts."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mirror.config.loader import environment
from mirror.config.schema import Config
from mirror.server.addresses import unused_addresses
from mirror.server.handover import Handover, is_rehearsal, received
from mirror.server.private_folder import private_folder
from mirror.server.supervisor import Hooks, Supervisor
from mirror.server.worker_process import Announce, WorkerSpec, tune_garbage_collector
from mirror.system.descriptors import raise_limit
from mirror.system.secrecy import forbid_core_dumps
from mirror.system.sockets import CLIENTS, ListeningSocket, format_address, inherited_sockets
from mirror.util.log import get_logger, server_log

log = get_logger(__name__)

# What only workers import. The parent of one worker stays small without it; several workers share it.
WORKER = "mirror.server.worker"


def run(config: Config, load: Callable[[], Config], announce: Announce) -> int:
    """Serve until a signal ends it; return the exit status.

    `load` reads the configuration again and raises ConfigError. `announce` is called with the addresses when
    the mirror is ready. Raises OSError with the reason why the mirror cannot start.
    """
    raise_limit()
    forbid_core_dumps()
    if is_rehearsal(environment()):
        importlib.import_module(WORKER)
        return 0
    handover = received(environment())
    sockets = inherited_sockets() if handover is None else handover.listening_sockets()

    def load_again() -> Config:
        new = load()
        _import_if_shared(new)
        return new

    def work(new: Config, spec: WorkerSpec) -> int:
        from mirror.server.worker import run_worker

        return run_worker(new, spec, announce, load)

    _import_if_shared(config)
    tune_garbage_collector()  # before the forks, which share what is exempt
    with _private_folder(handover) as folder, server_log(config.log, threaded=False):
        _warn_of_unused(config, sockets)
        hooks = Hooks(load_again, work, announce)
        return Supervisor(config, hooks, sockets, folder, handover).run()


def _import_if_shared(config: Config) -> None:
    if config.server.processes() > 1:
        importlib.import_module(WORKER)


@contextmanager
def _private_folder(handover: Handover | None) -> Iterator[Path]:
    """Yield a folder for the workers of this program, in one for all programs that follow each other."""
    runtime = environment().get("RUNTIME_DIRECTORY") or None
    with private_folder(runtime, None if handover is None else handover.folder) as outer:
        folder = outer / str(0 if handover is None else handover.generation)
        folder.mkdir(mode=0o700, exist_ok=True)
        yield folder


def _warn_of_unused(config: Config, sockets: Mapping[str, Sequence[ListeningSocket]]) -> None:
    """Tell the operator that an address was configured and is not served."""
    inherited = sockets.get(CLIENTS, ())
    if unused := unused_addresses(config.server.listen, inherited):
        log.warning(
            "server.listen is not used: the service manager holds the address",
            configured=", ".join(unused),
            served=", ".join(map(format_address, inherited)),
            to_do="change ListenStream: systemctl edit registry-mirror.socket, then restart both units",
        )
