"""The supervisor of several worker processes that serve on the same sockets.

The parent binds the sockets, forks the workers, and serves nothing itself: no event loop, no thread, no
cache. The parent replaces a worker that died. On SIGHUP it starts a complete new set of workers with the
configuration and the certificates of that moment; when all new workers are ready, the old ones retire.

The sockets are shared, instead of one socket per worker with SO_REUSEPORT. Closing a SO_REUSEPORT socket
resets the connections that wait in it, at each reload and each death; a worker that hangs blocks the
connections that the kernel's hash has assigned to it; and a service manager passes one socket anyway. A
shared socket closes with the last process. Workers share their numbers of connections
(`sockets.ConnectionCounts`), so that the worker with fewer connections accepts first.
"""

import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from mirror.config.loader import ConfigError
from mirror.config.schema import Config
from mirror.store.errors import reason_of
from mirror.system.sd_notify import notify
from mirror.system.sockets import ConnectionCounts, ListeningSocket, bind_all, format_address
from mirror.system.terminal import Terminal
from mirror.util.log import get_logger

log = get_logger(__name__)

# A worker that lived for less, in seconds, failed at once: its replacement is delayed.
SHORT_LIFE_SECONDS = 10.0

# Delay of the replacement, in seconds: the first from the second early death on, doubled with each, up to
# the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

# Signals to a worker: finish running responses and end; other workers have taken over.
STOP, RETIRE = signal.SIGTERM, signal.SIGUSR1


class WorkerSpec(Struct, frozen=True):
    """Parameters of a worker. `number`: unique among live workers, reused after a death.

    `sockets`: for clients; `operations`: for operators.
    `ready`: descriptor that takes a byte when the worker answers. `parent`: descriptor that reaches end of
    file when the parent dies.
    """

    number: int
    sockets: Sequence[ListeningSocket]
    counts: ConnectionCounts
    folder: Path
    ready: int
    parent: int
    operations: Sequence[ListeningSocket] = ()


class Stage(Enum):
    STARTING = auto()
    SERVING = auto()
    ENDING = auto()


class Worker(Struct, eq=False):
    pid: int
    number: int
    config: Config
    ready: int
    lifeline: int
    born: float
    stage: Stage = Stage.STARTING


class Hooks(Struct, frozen=True):
    """Callbacks into the layers above.

    `load` reads the configuration again and raises ConfigError. `work` runs a worker and returns its exit
    status. `announce` is called with the configuration and the addresses when the first workers are ready.
    """

    load: Callable[[], Config]
    work: Callable[[Config, WorkerSpec], int]
    announce: Callable[[Config, Sequence[str]], None]


class Supervisor:
    """Parent process; `run` may be called once."""

    def __init__(
        self, config: Config, hooks: Hooks, inherited: Sequence[ListeningSocket], folder: Path
    ) -> None:
        """Bind the addresses; raises OSError when one cannot be bound.

        `inherited`: sockets of a service manager, used instead of `server.listen`. `folder`: private, where
        workers find each other.
        """
        self._config = config
        self._hooks = hooks
        self._folder = folder
        # By HOST:PORT as configured; those of a service manager under the name "".
        self._sockets: dict[str, list[ListeningSocket]] = {"": list(inherited)} if inherited else {}
        self._counts = ConnectionCounts()
        self._terminal = Terminal()
        self._workers: list[Worker] = []
        self._next: Config | None = None  # while the workers of a new configuration start
        self._reload_again = False
        self._announced = False
        self._stopping = False
        self._status = 0
        self._short_lives = 0
        self._due: list[float] = []  # times at which to replace dead workers
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._signalled = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._bind(config)

    def run(self) -> int:
        """Run until a signal, or until no worker could be started; return the exit status."""
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _ignore)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        for _ in range(self._config.server.processes()):
            self._start(self._config)
        while self._workers or not self._stopping:
            self._wait_and_handle()
        return self._status

    def _wait_and_handle(self) -> None:
        timeout = min(self._due) - time.monotonic() if self._due else None
        for key, _ in self._selector.select(None if timeout is None else max(0.0, timeout)):
            if isinstance(key.data, Worker):
                self._on_ready(key.data)
            else:
                for number in os.read(self._wakeup, 4096):
                    self._on_signal(number)
        now = time.monotonic()
        for due in [each for each in self._due if each <= now]:
            self._due.remove(due)
            self._start(self._config)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP and not self._terminal.has_hung_up():
            self._reload()
        elif number == signal.SIGHUP:
            if not self._stopping:  # the kernel and the shell both send the signal
                self._stop(number)
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._stop(number)

    # Workers.

    def _start(self, config: Config) -> None:
        taken = {worker.number for worker in self._workers}
        number = next(each for each in range(len(taken) + 1) if each not in taken)
        ready, tell = os.pipe2(os.O_CLOEXEC)
        parent, lifeline = os.pipe2(os.O_CLOEXEC)
        sockets, operations = self._sockets_of(config), self._operations_of(config)
        spec = WorkerSpec(number, sockets, self._counts, self._folder, tell, parent, operations)
        # A signal to the child, before it has its own handlers, would run the parent's.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        pid = os.fork()
        if pid == 0:
            self._run_child(config, spec, (ready, lifeline))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        os.close(tell)
        os.close(parent)
        worker = Worker(pid, number, config, ready, lifeline, time.monotonic())
        self._workers.append(worker)
        self._selector.register(ready, selectors.EVENT_READ, worker)

    def _run_child(self, config: Config, spec: WorkerSpec, parents: tuple[int, int]) -> NoReturn:
        """Run the new process, which must never return into the parent's code."""
        status = 1
        try:
            for descriptor in parents:
                os.close(descriptor)
            signal.set_wakeup_fd(-1)
            for number in HANDLED:
                signal.signal(number, signal.SIG_DFL)
            # Ctrl-C goes to all processes; the parent decides.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            self._selector.close()
            for each in self._all_sockets():
                if each not in (
                    *spec.sockets,
                    *spec.operations,
                ):  # else the socket stays open without a process that accepts
                    each.close()
            for other in self._workers:  # else they do not notice the parent's death
                os.close(other.lifeline)
                os.close(other.ready)
            status = self._hooks.work(config, spec)
        except BaseException:  # above is only the parent's code
            traceback.print_exc()
        finally:
            os._exit(status)

    def _on_ready(self, worker: Worker) -> None:
        """Note that the worker answers; `_reap` handles a worker that ended instead."""
        self._selector.unregister(worker.ready)
        if not os.read(worker.ready, 1) or worker.stage is not Stage.STARTING:
            return
        worker.stage = Stage.SERVING
        if self._next is not None and not self._starting(self._next):
            self._switch(self._next)
        elif not self._announced and not self._starting(self._config):
            self._announced = True
            sockets = self._sockets_of(self._config)
            self._hooks.announce(self._config, [format_address(each) for each in sockets])
            self._finish_reload()

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            for worker in [each for each in self._workers if each.pid == pid]:
                self._workers.remove(worker)
                self._counts.leave(worker.number)
                with suppress(KeyError):
                    self._selector.unregister(worker.ready)
                os.close(worker.ready)
                os.close(worker.lifeline)
                self._on_death(worker, os.waitstatus_to_exitcode(status))

    def _on_death(self, worker: Worker, status: int) -> None:
        if worker.stage is Stage.ENDING or self._stopping:
            return
        if worker.config is self._next:
            log.error("worker of the new configuration died, the old configuration stays", status=status)
            self._give_up_reload()
            return
        if not self._announced:  # the worker has printed the reason
            self._status = status if status > 0 else 1
            self._end()
            return
        short = time.monotonic() - worker.born < SHORT_LIFE_SECONDS
        self._short_lives = self._short_lives + 1 if short else 0
        delay = restart_delay(self._short_lives)
        log.error(
            "worker died, starting a replacement", worker=worker.number, status=status, pause_seconds=delay
        )
        self._due.append(time.monotonic() + delay)

    def _send_signal(self, workers: Sequence[Worker], number: int) -> None:
        for worker in workers:
            worker.stage = Stage.ENDING
            os.kill(worker.pid, number)  # not reaped yet, so no other process has its pid

    # Stopping.

    def _stop(self, number: int) -> None:
        if self._stopping:  # fills resume from their chunk maps at the next start
            self._status = 128 + number
            self._send_signal(self._workers, signal.SIGKILL)
            return
        notify("STOPPING=1")
        seconds = self._config.server.shutdown_timeout
        log.info("stopping; a second signal ends the mirror at once", at_most_seconds=seconds)
        self._end()

    def _end(self) -> None:
        self._stopping = True
        self._due.clear()
        for each in self._all_sockets():
            each.close()
        self._send_signal(self._workers, STOP)

    # Reloading.

    def _reload(self) -> None:
        if self._stopping:
            return
        if self._next is not None or not self._announced:
            self._reload_again = True
            return
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = self._hooks.load()
            self._bind(config)
        except (ConfigError, OSError) as error:
            log.error("new configuration unusable, the old one stays in effect", reason=reason_of(error))
            notify("READY=1")
            return
        log.info("starting workers with the new configuration")
        self._next = config
        for _ in range(config.server.processes()):
            self._start(config)

    def _switch(self, config: Config) -> None:
        """Retire the old workers: all new ones serve."""
        self._send_signal([each for each in self._workers if each.config is not config], RETIRE)
        self._config, self._next = config, None
        self._short_lives = 0
        self._due.clear()
        self._unbind()
        log.info("reloaded, the old workers finish their responses")
        self._finish_reload()

    def _give_up_reload(self) -> None:
        self._send_signal([each for each in self._workers if each.config is self._next], STOP)
        self._next = None
        self._unbind()
        self._finish_reload()

    def _finish_reload(self) -> None:
        notify("READY=1")
        if self._reload_again:
            self._reload_again = False
            self._reload()

    # Sockets.

    def _bind(self, config: Config) -> None:
        """Bind what `config` listens on and is not bound yet; a service manager's sockets are for clients."""
        listen = () if "" in self._sockets else config.server.listen
        new = [each for each in (*listen, *config.server.operations_listen) if each not in self._sockets]
        self._sockets.update({each: bind_all([each]) for each in new})

    def _unbind(self) -> None:
        kept = ("", *self._config.server.listen, *self._config.server.operations_listen)
        for name in [each for each in self._sockets if each not in kept]:
            for each in self._sockets.pop(name):
                each.close()

    def _sockets_of(self, config: Config) -> list[ListeningSocket]:
        """Return the sockets for clients."""
        return self._bound(("", *config.server.listen))

    def _operations_of(self, config: Config) -> list[ListeningSocket]:
        """Return the sockets for operators."""
        return self._bound(config.server.operations_listen)

    def _bound(self, names: Sequence[str]) -> list[ListeningSocket]:
        return [each for name, sockets in self._sockets.items() if name in names for each in sockets]

    def _all_sockets(self) -> list[ListeningSocket]:
        return [each for sockets in self._sockets.values() for each in sockets]

    def _starting(self, config: Config) -> list[Worker]:
        return [each for each in self._workers if each.config is config and each.stage is Stage.STARTING]


def restart_delay(short_lives: int) -> float:
    """Return the seconds until a dead worker is replaced, after `short_lives` early deaths in a row."""
    return 0.0 if short_lives < 2 else min(FIRST_PAUSE * 2.0 ** (min(short_lives, 10) - 2), LONGEST_PAUSE)


def _ignore(_number: int, _frame: object) -> None:
    """Handle a signal by doing nothing: the wakeup descriptor carries its number."""
