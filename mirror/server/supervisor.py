"""Several processes that serve on the same sockets, and the one that looks after them.

The parent binds the sockets, forks the workers, and serves nothing itself: no event loop, no thread, no
cache. It starts a worker in the place of one that died, and on SIGHUP a whole new set, with the configuration
and the certificates as they are then; when all of those are ready, the old ones retire.

The sockets are shared, and not one each by SO_REUSEPORT. Closing one of those resets the connections that
wait in it, at each reload and each death; a worker that hangs keeps those waiting that the kernel's hash has
given to it; and what a service manager passes is one socket anyway. Shared ones close with the last process.
The workers tell each other how many connections they have (`listening.Crowd`), and who has fewer goes first.
"""

import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import NoReturn

from mirror.config.loader import ConfigError
from mirror.config.schema import Config
from mirror.system.sd_notify import notify
from mirror.system.sockets import ConnectionCounts, ListeningSocket, bind_all, format_address
from mirror.util.log import get_logger

log = get_logger(__name__)

# A worker that lived for less did not get far: the next one has to wait, in seconds.
SHORT_LIFE_SECONDS = 10.0

# How long, in seconds: from the second such death on, and doubled with each, up to the last.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

# What a worker is told by which signal: to finish what runs and end; that others have taken over.
STOP, RETIRE = signal.SIGTERM, signal.SIGUSR1


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker is given. `number`: no other that lives has it; one that died may have had it.

    `ready`: a descriptor to write a byte to when it answers; `parent`: one that ends with the parent.
    """

    number: int
    sockets: Sequence[ListeningSocket]
    counts: ConnectionCounts
    folder: Path
    ready: int
    parent: int


class Stage(Enum):
    COMING = auto()
    SERVING = auto()
    LEAVING = auto()


@dataclass(slots=True, eq=False)
class Worker:
    pid: int
    number: int
    config: Config
    ready: int
    lifeline: int
    born: float
    stage: Stage = Stage.COMING


@dataclass(frozen=True, slots=True)
class Hooks:
    """How things are done of which this module knows nothing.

    `load` reads the configuration again, ConfigError; `work` is a worker's life, and returns its exit status;
    `announce` is called with the configuration and the addresses when the first workers are ready.
    """

    load: Callable[[], Config]
    work: Callable[[Config, WorkerSpec], int]
    announce: Callable[[Config, Sequence[str]], None]


class Supervisor:
    """Run once. `sockets` by HOST:PORT as configured; those of a service manager under the name ""."""

    def __init__(
        self, config: Config, hooks: Hooks, inherited: Sequence[ListeningSocket], folder: Path
    ) -> None:
        """`folder`: private, where workers find each other. OSError when an address cannot be bound."""
        self._config = config
        self._hooks = hooks
        self._folder = folder
        self._sockets: dict[str, list[ListeningSocket]] = {"": list(inherited)} if inherited else {}
        self._counts = ConnectionCounts()
        self._workers: list[Worker] = []
        self._next: Config | None = None  # while the workers of a new configuration are coming
        self._reload_again = False
        self._announced = False
        self._stopping = False
        self._status = 0
        self._short_lives = 0
        self._due: list[float] = []  # when to start workers in the place of dead ones
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._signalled = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._bind(config)

    def run(self) -> int:
        """Until told to stop, or no worker could be started; returns the exit status."""
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _ignore)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        for _ in range(self._config.server.processes()):
            self._start(self._config)
        while self._workers or not self._stopping:
            self._turn()
        return self._status

    def _turn(self) -> None:
        timeout = min(self._due) - time.monotonic() if self._due else None
        for key, _ in self._selector.select(None if timeout is None else max(0.0, timeout)):
            if isinstance(key.data, Worker):
                self._on_ready(key.data)
            else:
                for number in os.read(self._wakeup, 4096):
                    self._on_signal(number)
        now = time.monotonic()
        for moment in [each for each in self._due if each <= now]:
            self._due.remove(moment)
            self._start(self._config)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            self._reload()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._stop(number)

    # A worker's life.

    def _start(self, config: Config) -> None:
        taken = {worker.number for worker in self._workers}
        number = next(each for each in range(len(taken) + 1) if each not in taken)
        ready, tell = os.pipe2(os.O_CLOEXEC)
        parent, lifeline = os.pipe2(os.O_CLOEXEC)
        spec = WorkerSpec(number, self._of(config), self._counts, self._folder, tell, parent)
        # A signal that the child has before it handles its own would be taken for one of the parent's.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        pid = os.fork()
        if pid == 0:
            self._live(config, spec, (ready, lifeline))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        os.close(tell)
        os.close(parent)
        worker = Worker(pid, number, config, ready, lifeline, time.monotonic())
        self._workers.append(worker)
        self._selector.register(ready, selectors.EVENT_READ, worker)

    def _live(self, config: Config, spec: WorkerSpec, parents: tuple[int, int]) -> NoReturn:
        """In the new process. Nothing of the parent's may be done by it, not even at its end."""
        status = 1
        try:
            for descriptor in parents:
                os.close(descriptor)
            signal.set_wakeup_fd(-1)
            for number in HANDLED:
                signal.signal(number, signal.SIG_DFL)
            # Ctrl-C goes to all of them; the parent tells what is to be done.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            self._selector.close()
            for each in self._all_sockets():
                if each not in spec.sockets:  # or it would be open when nobody accepts there any more
                    each.close()
            for other in self._workers:  # or they would not see the parent's end
                os.close(other.lifeline)
                os.close(other.ready)
            status = self._hooks.work(config, spec)
        except BaseException:  # there is nothing above but the parent's code
            traceback.print_exc()
        finally:
            os._exit(status)

    def _on_ready(self, worker: Worker) -> None:
        """It answers, or has ended, which `_reap` sees to."""
        self._selector.unregister(worker.ready)
        if not os.read(worker.ready, 1) or worker.stage is not Stage.COMING:
            return
        worker.stage = Stage.SERVING
        if self._next is not None and not self._coming(self._next):
            self._switch(self._next)
        elif not self._announced and not self._coming(self._config):
            self._announced = True
            self._hooks.announce(self._config, [format_address(each) for each in self._all_sockets()])
            self._reloaded()

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
        if worker.stage is Stage.LEAVING or self._stopping:
            return
        if worker.config is self._next:
            log.error("a worker of the new configuration died, going on with the old one", status=status)
            self._give_up_reload()
            return
        if not self._announced:  # it has said why
            self._status = status if status > 0 else 1
            self._end()
            return
        short = time.monotonic() - worker.born < SHORT_LIFE_SECONDS
        self._short_lives = self._short_lives + 1 if short else 0
        pause = restart_delay(self._short_lives)
        log.error("worker died, starting another", worker=worker.number, status=status, pause_seconds=pause)
        self._due.append(time.monotonic() + pause)

    def _tell(self, workers: Sequence[Worker], number: int) -> None:
        for worker in workers:
            worker.stage = Stage.LEAVING
            os.kill(worker.pid, number)  # not reaped yet, so nobody else has its number

    # The end.

    def _stop(self, number: int) -> None:
        if self._stopping:  # fills resume from their maps at the next start
            self._status = 128 + number
            self._tell(self._workers, signal.SIGKILL)
            return
        notify("STOPPING=1")
        log.info("stopping: finishing what is being sent, again to end at once")
        self._end()

    def _end(self) -> None:
        self._stopping = True
        self._due.clear()
        for each in self._all_sockets():
            each.close()
        self._tell(self._workers, STOP)

    # A new configuration.

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
            log.error("the new configuration cannot be used, going on with the old one", reason=str(error))
            notify("READY=1")
            return
        log.info("starting workers with the new configuration")
        self._next = config
        for _ in range(config.server.processes()):
            self._start(config)

    def _switch(self, config: Config) -> None:
        """All that are to serve from now on do so."""
        self._tell([each for each in self._workers if each.config is not config], RETIRE)
        self._config, self._next = config, None
        self._short_lives = 0
        self._due.clear()
        self._unbind()
        log.info("reloaded: the old workers finish what is being sent")
        self._reloaded()

    def _give_up_reload(self) -> None:
        self._tell([each for each in self._workers if each.config is self._next], STOP)
        self._next = None
        self._unbind()
        self._reloaded()

    def _reloaded(self) -> None:
        notify("READY=1")
        if self._reload_again:
            self._reload_again = False
            self._reload()

    # Sockets.

    def _bind(self, config: Config) -> None:
        """Have all that `config` listens on. A service manager's sockets are instead of any."""
        if "" not in self._sockets:
            new = [each for each in config.server.listen if each not in self._sockets]
            self._sockets.update({each: bind_all([each]) for each in new})

    def _unbind(self) -> None:
        for name in [each for each in self._sockets if not self._serves(self._config, each)]:
            for each in self._sockets.pop(name):
                each.close()

    def _serves(self, config: Config, name: str) -> bool:
        return not name or name in config.server.listen

    def _of(self, config: Config) -> list[ListeningSocket]:
        return [
            each for name, sockets in self._sockets.items() if self._serves(config, name) for each in sockets
        ]

    def _all_sockets(self) -> list[ListeningSocket]:
        return [each for sockets in self._sockets.values() for each in sockets]

    def _coming(self, config: Config) -> list[Worker]:
        return [each for each in self._workers if each.config is config and each.stage is Stage.COMING]


def restart_delay(short_lives: int) -> float:
    """Seconds until a dead worker's place is taken, after so many short lives in a row."""
    return 0.0 if short_lives < 2 else min(FIRST_PAUSE * 2.0 ** (min(short_lives, 10) - 2), LONGEST_PAUSE)


def _ignore(_number: int, _frame: object) -> None:
    """A handler, so that the signal does not end the process; the wakeup descriptor tells which it was."""
