"""HTTP below authentication: connections, redirects, proxies, names, slow bodies."""
