"""The authenticators of tokens: of this mirror always, of issuers where the configuration has some."""

from mirror.config.schema import Config
from mirror.service.service import Service
from mirror.web.identity.credentials import Authenticator
from mirror.web.identity.tokens import TokenAuthenticator


def token_authenticators(config: Config, service: Service) -> list[Authenticator]:
    """Return the authenticators of tokens; what the configuration does not want is not imported."""
    found: list[Authenticator] = [TokenAuthenticator(service.folder)]
    if config.issuers:
        from mirror.web.identity.issued import JwtAuthenticator

        offline = config.server.offline
        found.append(JwtAuthenticator(config.issuers, service.metrics, offline=offline))
    return found
