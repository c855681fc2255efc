"""Answers that several visitors share who ask the same within one interval."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Q = TypeVar("Q", bound=Hashable)
A = TypeVar("A")


class _Answer(Generic[A]):
    """The answer to one question, and the turn of those who wait for it."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.found: list[A] = []


class SharedAnswers(Generic[Q, A]):
    """Answers by question, each for the rest of its interval of `seconds`. `ask`: returns the answer now."""

    def __init__(
        self,
        ask: Callable[[Q], Awaitable[A]],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._interval = -1
        self._answers: dict[Q, _Answer[A]] = {}

    async def get(self, question: Q) -> A:
        """Return the answer of this interval. An error is for the one who asks: the next one asks again."""
        interval = int(self._clock() / self._seconds)
        if interval != self._interval:
            self._interval, self._answers = interval, {}
        answer = self._answers.setdefault(question, _Answer())
        async with answer.turn:
            if not answer.found:
                answer.found.append(await self._ask(question))
            return answer.found[0]
