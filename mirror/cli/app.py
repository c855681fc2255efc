"""Entry point of the `registry-mirror` command."""

import gc
import os
import signal
import sys

from mirror.cli.serve import parse_flags, run_server


def main() -> None:
    """Run the command of the arguments.

    `serve` starts without the library that parses the other commands: typer, and pydantic with it, would cost
    each start 100 ms, and each process 15 MB. Help and wrong arguments are typer's for `serve` too.
    """
    gc.disable()  # until the command has imported what it needs: imports leave hardly any garbage
    try:
        if sys.argv[1:2] == ["serve"] and (flags := parse_flags(sys.argv[2:])) is not None:
            sys.exit(run_server(flags))
        from mirror.cli.program import app

        app(prog_name="registry-mirror")
    except SystemExit as ending:
        if isinstance(ending.__context__, BrokenPipeError):
            _end_without_reader()
        raise
    except BrokenPipeError:
        _end_without_reader()
    except KeyboardInterrupt:  # before the server handles the signal
        sys.exit(128 + signal.SIGINT)


def _end_without_reader() -> None:
    """End as programs do whose output nothing reads any more (`ls | head`): quietly, by SIGPIPE.

    Python ignores that signal, so that every command could first tidy up after the error of its write.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
