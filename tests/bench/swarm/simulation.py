"""The simulation: all mirrors pull one cold image; holders of leases are killed, the coordinator flushed."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from mirror.oci.digest import Digest
from mirror.util.tasks import Tasks
from tests.bench.swarm import clock
from tests.bench.swarm.site import Figures, Plan, Site
from tests.bench.swarm.swarm_mirror import Mirror
from tests.bench.swarm.upstream import GrowingBlob


@dataclass(frozen=True)
class Outcome:
    """The figures of one simulation."""

    plan: Plan
    figures: Figures
    most_sent: int  # bytes on the line of one mirror to others and to the object store
    seconds: float  # of simulated time until the last mirror had all
    took: float  # processor seconds of this program

    @property
    def upstream(self) -> float:
        """Return the upstream's bytes, in images."""
        return self.figures.upstream_bytes / (self.plan.layers * self.plan.layer_bytes)

    def lines(self) -> list[str]:
        """Return the report."""
        figures, plan = self.figures, self.plan
        operations = figures.lease_operations
        image = plan.layers * plan.layer_bytes
        return [
            f"{plan.mirrors} mirrors, {plan.layers} layers of {plan.layer_bytes >> 20} MiB, seed {plan.seed}",
            f"killed {figures.killed}, finished {len(figures.finished)}",
            f"upstream: {self.upstream:.3f} images, in {figures.fills_upstream} fills; "
            f"had by killed mirrors alone: {figures.lost_bytes / image:.3f}, "
            f"of that beyond a gap: {figures.gap_bytes / image:.3f}",
            f"leases: {operations.total()} operations, {operations.total() / plan.mirrors:.1f} a mirror, "
            f"at most {max(operations.values())} in a second; look-ups in the store: {figures.stats}",
            f"the last mirror has all after {self.seconds:.1f} s, the median one after "
            f"{sorted(figures.finished)[len(figures.finished) // 2]:.1f} s",
            f"most on one mirror's line: {self.most_sent / image:.1f} images",
            f"processor time of the simulation: {self.took:.1f} s",
        ]


def simulate(plan: Plan) -> Outcome:
    """Run a simulation; the same plan has the same outcome."""
    began = time.process_time()
    site, seconds = clock.run(_simulate(plan))
    most = max(mirror.up.sent for mirror in site.mirrors.values())
    return Outcome(plan, site.figures, most, seconds, time.process_time() - began)


async def _simulate(plan: Plan) -> tuple[Site, float]:
    rng, loop = random.Random(plan.seed), asyncio.get_running_loop()
    site, tasks = Site(plan, loop), Tasks()
    mirrors = [Mirror(site, number) for number in range(plan.mirrors)]
    pulls = {
        mirror.address: tasks.spawn(mirror.pull(rng.uniform(0, plan.within)), name="pull")
        for mirror in mirrors
    }
    trouble = Trouble(site, tasks, rng, lambda mirror: pulls[mirror.address].cancel())
    site.on_lead = trouble.watch
    await asyncio.gather(*pulls.values(), return_exceptions=True)
    seconds = max(site.figures.finished)
    for mirror in mirrors:
        await mirror.tasks.close()
        await mirror.tier.close()
    await tasks.close()
    return site, seconds


class Trouble:
    """Kills of the mirrors that fetch some of the layers, and a flush while another one is fetched."""

    def __init__(self, site: Site, tasks: Tasks, rng: random.Random, end: Callable[[Mirror], object]) -> None:
        """`end`: ends the pull of a killed mirror."""
        plan = site.plan
        some = rng.sample(site.layers, min(plan.layers, plan.kills + plan.flush))
        self._when = {digest: rng.uniform(0, plan.layer_bytes) for digest in some}
        self._flush = some[0] if plan.flush else None
        self._site = site
        self._tasks = tasks
        self._end = end

    def watch(self, mirror: Mirror, digest: Digest, blob: GrowingBlob) -> None:
        """Wait for the moment, the first time that the layer is fetched."""
        if (when := self._when.pop(digest, None)) is not None:
            self._tasks.spawn(self._disturb(mirror, digest, blob, when), name="trouble")

    async def _disturb(self, mirror: Mirror, digest: Digest, blob: GrowingBlob, when: float) -> None:
        while blob.received < when and not mirror.leases.dead:
            await blob.changed.wait()
        if digest == self._flush:
            self._site.flush()
        elif not mirror.leases.dead:
            self._count(mirror)
            self._end(mirror)
            await mirror.kill()

    def _count(self, killed: Mirror) -> None:
        """Count the bytes that are lost with a mirror that fetches."""
        site, figures = self._site, self._site.figures
        figures.killed += 1
        others = [each for each in site.mirrors.values() if each is not killed and not each.leases.dead]
        for digest, blob in killed.blobs.items():
            if digest in site.store.stored or not blob.received:
                continue
            have = blob.size - sum(gap.length for gap in blob.missing())
            best = max((each.blobs[digest].prefix for each in others if digest in each.blobs), default=0)
            figures.lost_bytes += max(0, have - best)
            figures.gap_bytes += have - blob.prefix
