"""Activity of all workers: requests and downloads that run, and requests that have ended."""
