"""Parts of the facade of operators' use cases (`mirror.manage.management`)."""
