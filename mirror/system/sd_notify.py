"""Readiness notifications to the service manager (systemd's sd_notify(3))."""

import socket

from mirror.config.loader import environment


def notify(state: str) -> None:
    """Send `state`, for instance `READY=1`. Without a service manager nothing happens."""
    address = environment().get("NOTIFY_SOCKET")
    if not address:
        return
    # A leading @ is systemd's notation for an abstract socket, whose name begins with a zero byte.
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.setblocking(False)
        try:
            notifier.sendto(state.encode(), name)
        except OSError:
            return  # the mirror must survive a service manager that has gone away
