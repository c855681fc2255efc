"""Network namespace for the origin, with a cable to it and a firewall in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from tests.e2e.processes import attempt, run
from tests.leftovers import RUN
from tests.programs import program

# Reserved for tests of networks (RFC 2544); four addresses for each test process.
NETWORKS = ip_address("198.18.0.0")


@dataclass(frozen=True)
class Namespace:
    """A namespace: `here` is the address of this end of the cable, `there` that of the end inside.

    `device` is the network device inside.
    """

    name: str
    here: str
    there: str
    device: str

    @property
    def enter(self) -> tuple[str, ...]:
        """Command that runs a program inside."""
        return (program("ip"), "netns", "exec", self.name)

    def refuse(self) -> None:
        """Answer every connection with a reset."""
        self._filter("INPUT", "-i", self.device, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")

    def swallow(self) -> None:
        """Drop every packet, in both directions: a black hole."""
        self._filter("INPUT", "-i", self.device, "-j", "DROP")
        self._filter("OUTPUT", "-o", self.device, "-j", "DROP")

    def unplug(self) -> None:
        """Pull the cable out at its other end: the route from here stays, and leads nowhere."""
        run([program("ip"), "-n", self.name, "link", "set", self.device, "down"])

    def heal(self) -> None:
        run([*self.enter, program("iptables"), "--wait", "--flush"])

    def _filter(self, chain: str, *rule: str) -> None:
        run([*self.enter, program("iptables"), "--wait", "--insert", chain, *rule])


@contextmanager
def island() -> Iterator[tuple[str, ...]]:
    """Make a namespace without a route to anywhere; yield the command that runs a program in it.

    `ip netns exec` would hide the control groups, which dockerd needs.
    """
    ip, name = program("ip"), f"{RUN}-island"
    run([ip, "netns", "add", name])
    try:
        run([ip, "-n", name, "link", "set", "lo", "up"])
        yield (program("nsenter"), f"--net=/run/netns/{name}")
    finally:
        run([ip, "netns", "delete", name])


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Make a namespace that can be reached from here, and remove it afterwards with everything in it."""
    pid = os.getpid()
    base = NETWORKS + 4 * (pid % 16384)
    name, device = RUN, f"o{pid}"
    net = Namespace(name, str(base + 1), str(base + 2), device)
    ip = program("ip")
    run([ip, "netns", "add", name])
    try:
        run([ip, "link", "add", f"m{pid}", "type", "veth", "peer", "name", device, "netns", name])
        run([ip, "address", "add", f"{net.here}/30", "dev", f"m{pid}"])
        run([ip, "link", "set", f"m{pid}", "up"])
        run([ip, "-n", name, "address", "add", f"{net.there}/30", "dev", device])
        run([ip, "-n", name, "link", "set", device, "up"])
        run([ip, "-n", name, "link", "set", "lo", "up"])
        yield net
    finally:
        # The cable would go with the namespace, but some time later, and the next one needs its name.
        attempt([ip, "link", "delete", f"m{pid}"])
        run([ip, "netns", "delete", name])
