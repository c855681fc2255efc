"""The composition root: a configuration becomes everything that answers requests.

service     opening, housekeeping, closing
state       the state of upstreams, cache folder and shared tier, for /readyz and the pages
statistics  gauges that are sampled, and the metrics of all workers
warm_lists  images that are fetched on a schedule or by a command
"""
