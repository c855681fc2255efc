"""Prometheus metrics of one process and of all workers."""
