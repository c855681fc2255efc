"""What the operating system offers: sockets, systemd's notifications, malloc."""
