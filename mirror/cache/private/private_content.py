"""Private content: the answer to who may have it, as far as upstreams give it."""

from collections.abc import Collection, Mapping

from mirror.cache.private.guest_rights import GuestRights
from mirror.cache.private.visibility import Verdict, Visibility
from mirror.oci.reference import Repository
from mirror.transfer.context import TransferContext
from mirror.upstream.guests.current import serve_guest
from mirror.upstream.guests.guest_login import GuestLogin
from mirror.upstream.upstream_set import UpstreamSet


class PrivateContent:
    """Word of the upstreams about who may read their repositories."""

    def __init__(
        self, context: TransferContext, upstreams: UpstreamSet, *, fallback_after: float, missing: float
    ) -> None:
        """Both in seconds, as in `Visibility`."""
        self._upstreams = upstreams
        self._visibility = Visibility(context, upstreams, fallback_after=fallback_after, missing=missing)
        self._rights = GuestRights(context, upstreams, fallback_after=fallback_after)
        self.guarded = frozenset(name for name, upstream in upstreams.items() if upstream.accounts.guards)
        self.open_to_guests = frozenset(
            name for name in self.guarded if upstreams[name].accounts.admits_guests
        )

    def adopt(self, private: Mapping[str, str]) -> None:
        """Keep content from now on as a newer configuration says: to whom an upstream's private content goes.

        What is not in it stays as it is. Guests are let in nowhere where they were not from the start: the
        upstream's endpoint is not made for their credentials.
        """
        asked = {name: private[name] for name in private if name in self._upstreams}
        self.guarded = self.guarded.difference(asked) | {
            name for name, to in asked.items() if to != "everybody"
        }
        self.open_to_guests = frozenset(
            name for name in self.open_to_guests if asked.get(name, "as-upstream") == "as-upstream"
        )

    async def visibility(self, repository: Repository, reference: str | None) -> Verdict:
        """Return whether anybody may read a repository (`Visibility.verdict`)."""
        return await self._visibility.verdict(repository, reference)

    async def public_among(self, names: Collection[str]) -> set[str]:
        """Return those of the names that are known to be public (`Visibility.public_among`)."""
        return await self._visibility.public_among(names)

    async def admit_guest(
        self, repository: Repository, reference: str | None, credentials: GuestLogin
    ) -> float:
        """Let a client in by its own credentials, for the seconds that are returned; 0 if they are refused.

        What this task asks the upstream for from now on may be asked for with them. Raises UpstreamError.
        """
        guest = self._upstreams[repository.upstream].accounts.guest(repository.path, credentials)
        ttl = await self._rights.ttl(repository, reference, credentials)
        if ttl > 0:
            serve_guest(guest)
        return ttl

    def opens(self, repository: Repository, credentials: GuestLogin) -> bool:
        """Return whether credentials are known to open a repository; nothing is asked."""
        return self._rights.opens(repository, credentials)
