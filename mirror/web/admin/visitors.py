"""Visitors of the pages: who they are, what they may see, and what they may change.

    visitor                                   sees                             changes
    ----------------------------------------  -------------------------------  -------
    with the action `admin`                   everything                       yes
    at this machine, where no rule restricts  everything that is not private   no
    any other                                 what it may list and pull, its   no
                                              own requests, totals

A page elsewhere in a visitor's browser can neither read these pages nor change anything: requests for a
foreign name are refused (DNS rebinding), nothing goes by cookies, and a change needs a header and an origin
that only these pages have.
"""

import socket
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address

from aiohttp import web

from mirror.access.policy import parse_address
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Repository, Tag, Target, TargetKind, Via
from mirror.oci.registries import canonical_host, split_port
from mirror.upstream.errors import UpstreamError
from mirror.upstream.guests.current import serving_nobody
from mirror.web.access_control import AccessControl, FindBirth
from mirror.web.identity.gate import Gate
from mirror.web.request_log import RequestRecord

# Longest Host header that is read: a name of DNS and a port.
LONGEST_HOST = 261

# The header that a request has which changes something: no form and no link can add one.
CHANGE_HEADER = "X-Registry-Mirror"

# Headers by which a proxy tells that the visitor is another machine.
PROXY_HEADERS = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")


class PageVisitor:
    """The visitor of one request. `is_local`: it is at this machine, not behind a proxy."""

    def __init__(self, record: RequestRecord, gate: Gate, *, is_local: bool) -> None:
        self.record = record
        self._access: AccessControl = gate.access
        policy = gate.access.policy
        self.is_admin = policy.administers(record.identity)
        self.is_operator = self.is_admin or (is_local and not policy.restricts)

    @property
    def address(self) -> str:
        """The visitor's address."""
        return self.record.client

    @property
    def names(self) -> tuple[str, ...]:
        """The principals that the visitor has proven to be."""
        return self.record.identity.names

    @property
    def sees_all(self) -> bool:
        """Return whether nothing is hidden from the visitor."""
        return self.is_admin or not self._access.lists.hides(self.record)

    @property
    def pulls_all(self) -> bool:
        """Return whether no rule can keep the visitor from any tag."""
        return self.is_admin or not self._access.policy.restricts

    async def visible(self, names: Collection[str]) -> set[str]:
        """Return those of the repositories, `<upstream>/<repository>`, of which the visitor may know."""
        return set(names) if self.is_admin else await self._access.lists.repositories(self.record, names)

    async def authorise_pull(
        self, repository: Repository, manifests: Mapping[Tag | Digest, Digest], birth: FindBirth
    ) -> None:
        """Raise RegistryError unless the visitor may pull `manifests`: digests, by what names them."""
        if self.is_admin:
            return
        targets = {_target(repository, reference): digest for reference, digest in manifests.items()}
        try:
            with serving_nobody():
                await self._access.authorise_images(self.record, targets, birth)
        except (UpstreamError, TimeoutError) as error:
            reason = str(error) or "its upstream gives no answer"
            message = f"it is not known whether you may pull {repository}: {reason}"
            raise RegistryError(Code.UNAVAILABLE, message, status=503) from error

    async def authorise_image(
        self, repository: Repository, reference: Tag | Digest, digest: Digest, birth: FindBirth
    ) -> None:
        """Raise RegistryError unless the rules let the visitor pull an image at its age."""
        if not self.is_admin:
            await self._access.authorise_image(self.record, _target(repository, reference), digest, birth)

    def may_know_tag(self, repository: Repository, tag: str) -> bool:
        """Return whether the visitor may know of a tag in a repository of which it may know."""
        return self.is_admin or self._access.lists.may_know_tag(self.record, repository, tag)


def _target(repository: Repository, reference: Tag | Digest) -> Target:
    return Target(TargetKind.MANIFEST, Via.PREFIX, repository.upstream, repository, reference)


class FrontDoor:
    """Looks at requests before a page answers. `hosts`: names of the pages besides those of the machine."""

    def __init__(self, gate: Gate, hosts: Sequence[str]) -> None:
        self._gate = gate
        own = socket.gethostname().lower()
        self._hosts = {"localhost", own, own.partition(".")[0], f"{own.partition('.')[0]}.local", *hosts}

    def is_foreign(self, request: web.BaseRequest) -> bool:
        """Return whether the Host header is a name that is not of this machine."""
        host = _host(request.headers.get("Host", ""))
        if host is None:
            return True
        bare = split_port(host)[0]
        return not (_is_address(bare) or bare in self._hosts or host in self._hosts)

    def is_forged(self, request: web.BaseRequest) -> bool:
        """Return whether a request that changes something may come from a page elsewhere."""
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if CHANGE_HEADER not in request.headers or site not in (None, "same-origin", "none"):
            return True
        return origin is not None and origin.partition("://")[2] != request.headers.get("Host")

    async def admit(self, request: web.BaseRequest) -> PageVisitor:
        """Return who sends a request. Raises RegistryError for wrong credentials."""
        record = RequestRecord(request)
        await self._gate.identify(record)
        return PageVisitor(record, self._gate, is_local=_is_local(request, record.client))


def _host(text: str) -> str | None:
    return canonical_host(text) if len(text) <= LONGEST_HOST else None


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _is_local(request: web.BaseRequest, client: str) -> bool:
    """Return whether a request comes from this machine, by the loopback interface and by no proxy."""
    address = parse_address(client)
    return (
        address is not None
        and address.is_loopback
        and not any(each in request.headers for each in PROXY_HEADERS)
    )
