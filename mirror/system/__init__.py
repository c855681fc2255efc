"""Services of the operating system: sockets, systemd's notifications, malloc."""
