"""One account at an upstream: token servers, requests for tokens, whether its password is taken."""
