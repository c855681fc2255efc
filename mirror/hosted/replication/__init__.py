"""Replication: what is pushed to a hosted registry goes to other registries too."""
