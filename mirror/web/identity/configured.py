"""Identification as the configuration wants it; what it does not want is not imported."""

from typing import TYPE_CHECKING

from mirror.config.schema import Config
from mirror.service.service import Service
from mirror.web.identity.challenge import Challenges
from mirror.web.identity.identification import Identification
from mirror.web.identity.token_kinds import token_authenticators

if TYPE_CHECKING:
    from mirror.web.identity.token_service import TokenService

# The file of the key of tokens, in the cache folder.
KEY_FILE = "token-key"


def configured(config: Config, service: Service) -> "tuple[Identification, TokenService | None]":
    """Return the identification of clients, and the token service if clients may log in anywhere."""
    access, proxies = config.access, config.server.proxies()
    guests = any(each.private == "as-upstream" for each in config.upstreams)
    # A name that stands for a hosted registry alone is no mirror's, to which clients would send other logins.
    hosts = (*access.login_hosts, *(host for each in config.hosted for host in each.hosts))
    challenges = Challenges(hosts, proxies, basic=guests)
    found = Identification(proxies, challenges=challenges, groups=config.client_groups(), guests=guests)
    kinds = found.authenticators
    kinds += token_authenticators(config, service)
    if access.htpasswd is not None:
        from mirror.web.identity.basic import BasicUsers
        from mirror.web.identity.users import Users

        users = Users(access.htpasswd, service.note_access_change)
        kinds.append(BasicUsers(users, others=guests, attempts=service.attempts))
    if not hosts:
        return found, None
    from mirror.web.identity.signer import TokenSigner, new_key
    from mirror.web.identity.token_service import SignedTokens, TokenService

    signer = TokenSigner(new_key())
    kinds.insert(0, SignedTokens(signer, service.folder.path / KEY_FILE, kinds))
    return found, TokenService(signer, kinds)
