"""The account of an upstream: where its login comes from, and whether the registry accepts it."""

from mirror.credentials.credential import place_of
from mirror.doctor.finding import Diagnosis, error, fine, warning
from mirror.upstream.accounts import Account
from mirror.upstream.errors import Failure
from mirror.upstream.registry_client import RegistryClient

LOST = "what is private cannot be pulled, and the rate limit is that of this address"


async def examine_login(registry: RegistryClient, name: str, account: Account, path: str) -> list[Diagnosis]:
    """Return the finding about the login of an account; none for requests without one.

    `path`: a repository to ask about, whose answer does not matter.
    """
    login, verdict = account.auth.login, account.auth.verdict
    if login is None:
        return []
    reason = None
    if not verdict.accepted and not verdict.refused:
        reason = await registry.try_account(account, path)
    source = login.source
    mend = f"correct {source.advice} of {name}; registry-mirror config check says what it has"
    if login.failure is not None and login.held is None:
        return [error(name, f"no credentials: {login.failure}", LOST, mend)]
    if login.held is None:
        note = login.note or f"{source.label} has no login for it"
        return [warning(name, f"no account: {note}", LOST, mend)] if login.absent else []
    who = f"{login.held.username}, from {place_of(source, login.held)}"
    if verdict.refused:
        again = f"correct {source.advice} of {name}: the mirror reads it again by itself"
        return [error(name, f"the password of {who}, is refused", LOST, again)]
    if verdict.accepted:
        return [fine(name, f"the account {who}, is accepted")]
    if reason is not None and reason.failure is Failure.DENIED:
        return [error(name, f"the account {who}, is not accepted: {reason.message}", LOST, mend)]
    return [fine(name, f"the account {who}, was not asked for")]
