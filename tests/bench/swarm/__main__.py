"""python -m tests.bench.swarm: many mirrors with a shared tier that want one cold image, simulated.

Real are leases, claims, places, sources and the planner of downloads; lines, disks and engines are models.
"""

import argparse
import sys

from mirror.config.schema import LogSettings
from mirror.util.log import configure
from tests.bench.swarm.simulation import simulate
from tests.bench.swarm.site import Plan


def main() -> None:
    """Simulate as the command line says, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.swarm", description=__doc__)
    default = Plan()
    parser.add_argument("--mirrors", type=int, default=default.mirrors)
    parser.add_argument("--layers", type=int, default=default.layers)
    parser.add_argument("--layer-mib", type=int, default=default.layer_bytes // 2**20)
    parser.add_argument("--within", type=float, default=default.within, help="seconds in which all begin")
    parser.add_argument("--kills", type=int, default=default.kills)
    parser.add_argument("--no-flush", action="store_true")
    parser.add_argument("--seed", type=int, default=default.seed)
    options = parser.parse_args()
    plan = Plan(
        mirrors=options.mirrors,
        layers=options.layers,
        layer_bytes=options.layer_mib * 2**20,
        within=options.within,
        kills=options.kills,
        flush=not options.no_flush,
        seed=options.seed,
    )
    configure(LogSettings(level="error"))
    sys.stdout.write("\n".join(simulate(plan).lines()) + "\n")


if __name__ == "__main__":
    main()
