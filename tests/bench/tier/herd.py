"""Many clients of several mirrors that pull one cold image at once, without trouble and with it."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tests.bench.client import Trouble
from tests.bench.content import Image
from tests.bench.tier.crowd import Crowd, Found, last, order
from tests.bench.tier.rows import Figures
from tests.bench.tier.site import Mirror, Site
from tests.engines import PASSWORD, Engine

MIRRORS, CLIENTS_EACH = 4, 50

# Seconds from the start of a herd to the trouble, and the length of what ends by itself.
BEGINS, LASTS = 2.0, 10.0


@dataclass(frozen=True)
class Plan:
    """Rates of the lines in bits per second: of each mirror and the object store, and of the upstream."""

    image: Image
    line: int
    upstream: int


@dataclass(frozen=True)
class Herd:
    """Measurements of a herd, by the bytes of the image.

    `sent`: layers that the upstream has sent, by its log, which counts what a connection that was closed had
    taken. `crossed`: all that has left on its line, heads of packets included.
    """

    crowds: list[Found]
    sent: float
    crossed: float

    @property
    def last(self) -> float:
        return last(self.crowds)

    @property
    def failures(self) -> list[str]:
        return [failure for crowd in self.crowds for failure in crowd.failures]


def herd(site: Site, plan: Plan, figures: Figures) -> None:
    """Measure one mirror with 50 clients, and four with 200."""
    alone = run(site, plan, 1)
    together = run(site, plan, MIRRORS)
    for each in (alone, together):
        if each.failures:
            raise Trouble(f"{len(each.failures)} pulls failed: {each.failures[0]}")
    figures.add("herd-upstream", together.sent)
    figures.add("herd-alone", alone.last)
    figures.add("herd-together", together.last)
    figures.add("herd-last", together.last / alone.last)


def trouble(site: Site, plan: Plan, figures: Figures) -> None:
    """Measure four mirrors with 200 clients while each kind of trouble comes."""
    for kind, disturb in TROUBLES.items():
        found = run(site, plan, MIRRORS, disturb)
        figures.add(f"{kind}-failed", len(found.failures))
        figures.add(f"{kind}-upstream", found.crossed)
        figures.add(f"{kind}-last", found.last)
        if found.failures:
            figures.note(f"{kind}: {found.failures[0]}")


def run(
    site: Site, plan: Plan, mirrors: int, disturb: "Callable[[Site, Sequence[Mirror]], None] | None" = None
) -> Herd:
    """Have 50 clients of each of so many empty mirrors pull an image that only the upstream has."""
    site = site.empty()
    site.upstream.shape(plan.upstream)
    site.store_node.shape(plan.line)
    with site.mirrors(mirrors, plan.line) as running, ExitStack() as stack:
        site.origin.forget()
        before, crowds = site.upstream.traffic[1], []
        for mirror in running:
            node = stack.enter_context(site.network.node())
            crowds.append(stack.enter_context(Crowd(node, order(mirror.address, plan.image, CLIENTS_EACH))))
        for crowd in crowds:
            crowd.go()
        if disturb is not None:
            time.sleep(BEGINS)
            disturb(site, running)
        found = [crowd.result() for crowd in crowds]
        sent = sum(site.origin.sent(each) for each in plan.image.layers)
        crossed = site.upstream.traffic[1] - before
    size = sum(each.size for each in plan.image.layers)
    return Herd(found, sent / size, crossed / size)


def _nothing(site: Site, mirrors: Sequence[Mirror]) -> None:
    """Disturb nothing."""


def _kill(site: Site, mirrors: Sequence[Mirror]) -> None:
    site.coordinator.kill()
    time.sleep(LASTS)
    with site.coordinator_node.inside():
        site.coordinator.start()


def _flush(site: Site, mirrors: Sequence[Mirror]) -> None:
    """Flush every second."""
    for _ in range(int(LASTS)):
        _flush_once(site.coordinator)
        time.sleep(1)


def _flush_once(engine: Engine) -> None:
    import redis

    with redis.Redis(engine.host, engine.port, password=PASSWORD) as client:
        client.flushall()


def _stop(site: Site, mirrors: Sequence[Mirror]) -> None:
    site.coordinator.stop()
    try:
        time.sleep(LASTS)
    finally:
        site.coordinator.go_on()


def _part(site: Site, mirrors: Sequence[Mirror]) -> None:
    """Have half of the mirrors reach neither the coordinator nor the other half."""
    half = [each.node for each in mirrors[len(mirrors) // 2 :]]
    others = [each.node for each in mirrors[: len(mirrors) // 2]] + [site.coordinator_node]
    for one in half:
        for other in others:
            one.lose(other)
            other.lose(one)
    time.sleep(LASTS)
    for one in half:
        for other in others:
            one.find(other)
            other.find(one)


TROUBLES: dict[str, Callable[[Site, Sequence[Mirror]], None]] = {
    "nothing": _nothing,
    "killed": _kill,
    "flushed": _flush,
    "stopped": _stop,
    "parted": _part,
}
