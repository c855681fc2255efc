"""HTTP below authentication: connections, TLS, redirects, proxies, DNS, slow bodies."""
