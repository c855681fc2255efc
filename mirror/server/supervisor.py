"""The supervisor: the parent that holds the listening sockets, and one worker process or several that serve.

The parent binds the sockets, forks the workers, and serves nothing itself: no event loop, no thread, no
cache. A client that connects while no worker accepts waits in the socket's queue. The parent replaces a
worker that died. On SIGHUP it starts a complete new set of workers with the configuration and the
certificates of that moment; when all new workers are ready, the old ones retire. On SIGUSR2 a newer program
takes over (`mirror.server.handover`).

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from msgspec import Struct

from mirror import __version__
from mirror.config.loader import ConfigError, environment
from mirror.config.schema import Config
from mirror.server.addresses import BoundAddresses
from mirror.server.handover import Handover, OldWorker, Rehearsal, execute
from mirror.server.reload import note_new_rules, notify_reloading
from mirror.server.worker_process import RETIRE, STOP, Stage, Worker, WorkerSpec
from mirror.system.sd_notify import notify
from mirror.system.sockets import ConnectionCounts, ListeningSocket, format_address
from mirror.system.terminal import Terminal
from mirror.util.log import get_logger
from mirror.util.tracebacks import reason_of

if TYPE_CHECKING:
    from mirror.system.shared_table import SharedTable

log = get_logger(__name__)

# A worker that lived for less, in seconds, failed at once: its replacement is delayed.
SHORT_LIFE_SECONDS = 10.0

# Delay of the replacement, in seconds: the first from the second early death on, doubled with each, up to
# the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2)


class Hooks(Struct, frozen=True):
    """Callbacks into the layers above.

    `load` reads the configuration again and raises ConfigError. `work` runs a worker and returns its exit
    status. `announce` is called with the configuration and the addresses when the first workers are ready, if
    there are several: an only one says so itself, because it has the cache open.
    """

    load: Callable[[], Config]
    work: Callable[[Config, WorkerSpec], int]
    announce: Callable[[Config, Sequence[str]], None]


class Supervisor:
    """Parent process; `run` may be called once."""

    def __init__(
        self,
        config: Config,
        hooks: Hooks,
        inherited: Mapping[str, Sequence[ListeningSocket]],
        folder: Path,
        handover: Handover | None = None,
    ) -> None:
        """Bind the addresses; raises OSError when one cannot be bound.

        `inherited`: sockets of a service manager, used instead of configured addresses, or those that are
        handed over. `folder`: private, where workers find each other. `handover`: of the program before.
        """
        self._config = config
        self._hooks = hooks
        self._folder = folder
        self._addresses = BoundAddresses(inherited)
        self._counts = ConnectionCounts()
        self._table: SharedTable | None = None
        self._terminal = Terminal()
        self._workers: list[Worker] = []
        self._next: Config | None = None  # while the workers of a new configuration start
        self._reload_again = False
        self._announced = False
        self._stopping = False
        self._status = 0
        self._short_lives = 0
        self._due: list[float] = []  # times at which to replace dead workers
        self._rehearsal: Rehearsal | None = None
        self._generation = 0
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._signalled = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._addresses.bind(config.server)
        self._addresses.bind_admin(config.admin.listen)
        if handover is not None:
            self._take_over(handover)

    def run(self) -> int:
        """Run until a signal, or until no worker could be started; return the exit status."""
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _ignore)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)  # blocked during a handover
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        for _ in range(self._config.server.processes()):
            self._start(self._config)
        while self._workers or not self._stopping:
            self._wait_and_handle()
        return self._status

    def _wait_and_handle(self) -> None:
        due = [*self._due, *([self._rehearsal.deadline] if self._rehearsal else [])]
        timeout = min(due) - time.monotonic() if due else None
        for key, _ in self._selector.select(None if timeout is None else max(0.0, timeout)):
            if isinstance(key.data, Worker):
                if key.data in self._workers:  # its death may have come first, and its pipe is closed then
                    self._on_ready(key.data)
            else:
                for number in os.read(self._wakeup, 4096):
                    self._on_signal(number)
        now = time.monotonic()
        if self._rehearsal is not None and self._rehearsal.deadline <= now:
            self._rehearsal.end()
        for moment in [each for each in self._due if each <= now]:
            self._due.remove(moment)
            self._start(self._config)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP and not self._terminal.has_hung_up():
            self._reload()
        elif number == signal.SIGHUP:
            if not self._stopping:  # the kernel and the shell both send the signal
                self._stop(number)
        elif number == signal.SIGUSR2:
            self._rehearse()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._stop(number)

    # Workers.

    def _start(self, config: Config) -> None:
        taken = {worker.number for worker in self._workers}
        number = next(each for each in range(len(taken) + 1) if each not in taken)
        ready, tell = os.pipe2(os.O_CLOEXEC)
        parent, lifeline = os.pipe2(os.O_CLOEXEC)
        sockets = self._addresses.for_clients(config.server)
        operations = self._addresses.for_operations(config.server)
        admin = self._addresses.for_admin(config.admin.listen)
        first = not self._announced
        table = self._shared_table(config)
        spec = WorkerSpec(
            number, sockets, self._counts, self._folder, tell, parent, operations, first, table, admin
        )
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

    def _shared_table(self, config: Config) -> "SharedTable | None":
        """Return what workers share about their clients, made at the first need of it."""
        guests = any(each.private == "as-upstream" for each in config.upstreams)
        needed = config.limits or guests or config.access.htpasswd is not None
        if needed and self._table is None:
            from mirror.system.shared_table import SharedTable

            self._table = SharedTable()
        return self._table

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
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            self._selector.close()
            # Else a socket stays open without a process that accepts.
            self._addresses.close(kept=[*spec.sockets, *spec.operations, *spec.admin])
            for other in self._workers:  # else they do not notice the parent's death
                other.close()
            status = self._hooks.work(config, spec)
        except BaseException:  # above is only the parent's code
            traceback.print_exc()
        finally:
            os._exit(status)

    def _on_ready(self, worker: Worker) -> None:
        """Note that the worker answers; `_reap` handles a worker that ended instead."""
        if worker.ready is None:
            return
        self._selector.unregister(worker.ready)
        if not os.read(worker.ready, 1) or worker.stage is not Stage.STARTING:
            return
        worker.stage = Stage.SERVING
        if self._next is not None and not self._starting(self._next):
            self._switch(self._next)
        elif not self._announced and not self._starting(self._config):
            self._announced = True
            if self._config.server.processes() > 1:
                sockets = self._addresses.for_clients(self._config.server)
                self._hooks.announce(self._config, [format_address(each) for each in sockets])
            self._finish_reload()

    def _reap(self) -> None:
        while self._workers or self._rehearsal:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if self._rehearsal is not None and self._rehearsal.pid == pid:
                self._rehearsal = None
                self._on_rehearsed(os.waitstatus_to_exitcode(status))
            for worker in [each for each in self._workers if each.pid == pid]:
                self._workers.remove(worker)
                self._counts.leave(worker.number)
                if worker.ready is not None:
                    with suppress(KeyError):
                        self._selector.unregister(worker.ready)
                worker.close()
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
        if self._rehearsal is not None:
            self._rehearsal.end()
        self._addresses.close()
        self._send_signal(self._workers, STOP)

    # Reloading.

    def _reload(self) -> None:
        if self._stopping:
            return
        if self._next is not None or not self._announced or self._rehearsal is not None:
            self._reload_again = True
            return
        notify_reloading()
        try:
            config = self._hooks.load()
            self._addresses.bind(config.server)
            self._addresses.bind_admin(config.admin.listen)
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
        note_new_rules(config.cache.dir)
        self._config, self._next = config, None
        self._short_lives = 0
        self._due.clear()
        self._addresses.unbind(config.server, config.admin.listen)
        log.info("reloaded, the old workers finish their responses")
        self._finish_reload()

    def _give_up_reload(self) -> None:
        self._send_signal([each for each in self._workers if each.config is self._next], STOP)
        self._next = None
        self._addresses.unbind(self._config.server, self._config.admin.listen)
        self._finish_reload()

    def _finish_reload(self) -> None:
        notify("READY=1")
        if self._reload_again:
            self._reload_again = False
            self._reload()

    # Handing over to a newer program.

    def _rehearse(self) -> None:
        if self._stopping or self._rehearsal is not None:
            return
        if self._next is not None or not self._announced:
            log.warning("workers are starting, the newer program is not tried: send SIGUSR2 again")
            return
        notify_reloading()
        log.info("trying whether the newer program can start")
        try:
            self._rehearsal = Rehearsal(environment())
        except OSError as error:
            self._refuse_program(reason_of(error))

    def _on_rehearsed(self, status: int) -> None:
        if self._stopping:
            return
        if status != 0:
            self._refuse_program(f"its trial ended with status {status}; its reason is in the log above")
            return
        old = [
            OldWorker(each.pid, each.number, each.lifeline, each.stage is Stage.ENDING)
            for each in self._workers
        ]
        numbers, generation = self._addresses.numbers(), self._generation + 1
        handover = Handover(os.getpid(), numbers, old, str(self._folder.parent), generation)
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            execute(handover, environment())
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            self._refuse_program(reason_of(error))

    def _refuse_program(self, reason: str) -> None:
        log.error("the newer program cannot start, this one stays", reason=reason)
        self._finish_reload()

    def _take_over(self, handover: Handover) -> None:
        """Continue for the program before: its workers serve until those of this one are ready."""
        log.info("the newer program starts its workers", version=__version__)
        self._generation = handover.generation
        self._announced, self._next = True, self._config
        for each in handover.workers:
            os.set_inheritable(each.lifeline, False)
            stage = Stage.ENDING if each.ending else Stage.SERVING
            self._workers.append(
                Worker(each.pid, each.number, None, None, each.lifeline, time.monotonic(), stage)
            )

    def _starting(self, config: Config) -> list[Worker]:
        return [each for each in self._workers if each.config is config and each.stage is Stage.STARTING]


def restart_delay(short_lives: int) -> float:
    """Return the seconds until a dead worker is replaced, after `short_lives` early deaths in a row."""
    return 0.0 if short_lives < 2 else min(FIRST_PAUSE * 2.0 ** (min(short_lives, 10) - 2), LONGEST_PAUSE)


def _ignore(_number: int, _frame: object) -> None:
    """Handle a signal by doing nothing: the wakeup descriptor carries its number."""
