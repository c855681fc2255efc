"""The terminal that a process was started from, and whether that terminal has gone."""

import os
import select
import signal

# Standard input, output and error.
STANDARD = (0, 1, 2)


class Terminal:
    """The terminals among the standard descriptors at the time of creation."""

    def __init__(self) -> None:
        # nohup(1) ignores SIGHUP: the process is meant to outlive its terminal.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._descriptors = [] if ignored else [each for each in STANDARD if os.isatty(each)]

    def has_hung_up(self) -> bool:
        """Return whether one of the terminals was closed: a lost ssh session, a window that was closed."""
        poll = select.poll()
        for each in self._descriptors:
            poll.register(each, 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
