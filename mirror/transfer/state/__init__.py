"""Parts of the state of a transfer (`mirror.transfer.transfer`): its clients, its progress."""
