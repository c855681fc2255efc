"""The part of `python -m tests.fuzz parsers` that CI has time for, and the trial itself."""

import re
import time

import pytest

from tests.fuzz.parsers import trial
from tests.fuzz.parsers.__main__ import main
from tests.fuzz.parsers.parsers import PARSERS
from tests.fuzz.parsers.trial import ACCEPTED, REFUSED, Parser, Trial


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_parsers_refuse_as_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """A fixed seed, all parsers: no undocumented error, no result that is not canonical, no hang."""
    status = main(["--seed", "16", "--inputs", "26000"])
    output = capsys.readouterr().out
    print(output)
    assert status == 0
    counts = re.findall(r"([0-9,]+) accepted, ([0-9,]+) refused", output)
    assert len(counts) == len(PARSERS)
    assert all(accepted != "0" and refused != "0" for accepted, refused in counts)


def _check(data: bytes) -> bool:
    if b"hang" in data:
        end = time.process_time() + 60
        while time.process_time() < end:
            pass
    if b"error" in data:
        raise KeyError("x")
    return ACCEPTED if data else REFUSED


def test_trial_finds_errors_and_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is shown with its shortest input; an input is the same for the same seed."""
    monkeypatch.setattr(trial, "LIMIT_SECONDS", 0.02)
    tried = Trial(Parser("x", _check, (b"a",), (b"b",)), 1)
    assert tried.fault(b"a") is None
    assert tried.fault(b"a hang") == "took more than 0.02 s"
    assert tried.fault(b"an error") == "KeyError: 'x'"
    assert tried.minimised(trial.Failure(0, b"this is an error of some kind", "")) == b"error"
    assert [tried.input(number) for number in range(50)] == [tried.input(number) for number in range(50)]
