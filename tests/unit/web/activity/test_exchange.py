"""Questions from one worker to the others."""

import asyncio
from pathlib import Path

import pytest

from mirror.web.activity import exchange
from mirror.web.activity.exchange import MOST_QUESTION, WorkerExchange


def answering(folder: Path, number: int, text: bytes = b"") -> WorkerExchange:
    async def answer(question: bytes) -> bytes:
        return text or b"%d: " % number + question.strip()

    return WorkerExchange(folder, number, answer)


async def test_exchange_has_the_answers_of_the_others(tmp_path: Path) -> None:
    """Not of this one, not of one that was killed, and not of one that has ended."""
    workers = [answering(tmp_path, number) for number in range(3)]
    for each in workers:
        await each.open()
    (tmp_path / "9.ask").touch()
    assert sorted(await workers[0].ask_others(b"who")) == [b"1: who", b"2: who"]
    await workers[2].close()
    assert await workers[0].ask_others(b"who") == [b"1: who"]
    for each in workers[:2]:
        await each.close()
    assert await answering(tmp_path, 5).ask_others(b"who") == []


async def test_connection_stays_for_the_next_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is closed without one; a worker that was replaced meanwhile is found."""
    served, asking = answering(tmp_path, 1), answering(tmp_path, 0)
    await served.open()
    for _ in range(2):
        assert await asking.ask_others(b"who") == [b"1: who"]
        assert (len(served._asking), len(asking._lines)) == (1, 1)
    assert await asyncio.gather(*[asking.ask_others(b"who")] * 3) == [[b"1: who"]] * 3
    assert len(asking._lines) == 1
    await served.close()
    served = answering(tmp_path, 1, b"again")
    await served.open()
    monkeypatch.setattr(exchange, "IDLE_SECONDS", 0.0)
    assert await asking.ask_others(b"who") == [b"again"]
    async with asyncio.timeout(60):
        while served._asking:  # noqa: ASYNC110  # the socket tells its server alone
            await asyncio.sleep(0.001)
    assert not asking._lines
    await served.close()
    await asking.close()


async def test_exchange_bounds_questions_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that says too much, or nothing, is left out."""
    monkeypatch.setattr(exchange, "MOST_ANSWER", 100)
    monkeypatch.setattr(exchange, "ANSWER_SECONDS", 0.3)
    talker, hub = answering(tmp_path, 1, b"x" * 101), answering(tmp_path, 0)
    await talker.open()
    assert await hub.ask_others(b"?") == []
    await talker.close()
    hub._others = (0.0, [])
    polite = answering(tmp_path, 2)
    await polite.open()
    assert await hub.ask_others(b"x" * (2 * MOST_QUESTION)) == []
    await polite.close()
