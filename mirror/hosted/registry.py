"""The hosted registries: pushes and deletions. `mirror.hosted.origin` has what a client is given of them.

Everything is decided by links: a blob opens only through a link of its repository (invariant 5), and a
HEAD is answered by the same rule, because a client that learns of a blob does not upload it. What the mirror
has for others becomes a repository's own by `mount`, where the client may read it there.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from msgspec import Struct
from msgspec.structs import replace

from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted.origin import HostedOrigin
from mirror.hosted.pushed import check_manifest
from mirror.hosted.refusals import answered, unknown_blob, unknown_manifest
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.diskcache_disk import VerifiedFile
from mirror.store.hosted.hosted_room import Claim
from mirror.store.hosted.hosted_store import HostedStore
from mirror.store.hosted.pushes import PushedManifest, Quotas
from mirror.store.store import Store
from mirror.util.tasks import Tasks, off_loop

# Repositories that are looked at to mount a blob of which the client does not say where it is.
MOST_SOURCES = 100


class PutManifest(Struct, frozen=True):
    """The result of a push. `subject`: what the manifest refers to; `tags`: those that point to it now."""

    digest: Digest
    subject: Digest | None = None
    tags: tuple[str, ...] = ()


class Change(Struct, frozen=True):
    """A change of a repository, for those who listen: "push" or "delete" of a tag, a manifest or a blob.

    `before`: what the tag pointed to.
    """

    action: str
    repository: Repository
    digest: Digest
    tag: str | None = None
    media_type: str | None = None
    size: int = 0
    before: str | None = None


class HostedRegistry:
    """All hosted registries of one mirror. Raises RegistryError."""

    def __init__(self, store: Store, hosted: Iterable[HostedSettings], tasks: Tasks) -> None:
        self._settings = {each.name: each for each in hosted}
        self.store = HostedStore(store)
        self.content = HostedOrigin(store, self.store, tasks)
        # Called before a change, with its action (`Change`), and awaited; called after it.
        self.before_change: list[Callable[[Repository, Sequence[Tag | Digest], str], Awaitable[None]]] = []
        self.on_change: list[Callable[[Change], object]] = []

    def __contains__(self, name: object) -> bool:
        """Return whether a registry is hosted here."""
        return name in self._settings

    def __iter__(self) -> Iterator[str]:
        """Return the names of the registries."""
        return iter(self._settings)

    def settings(self, repository: Repository) -> HostedSettings:
        """Return the options of a repository's registry."""
        return self._settings[repository.upstream]

    async def put_manifest(
        self,
        repository: Repository,
        reference: Tag | Digest,
        media_type: str | None,
        data: bytes,
        tags: Collection[Tag] = (),
    ) -> PutManifest:
        """Keep a manifest, and let its tags point to it: `reference`, and `tags` of a push by digest."""
        settings = self.settings(repository)
        algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
        found = await off_loop(len(data), check_manifest, data, media_type, algorithm, settings.max_manifest)
        if isinstance(reference, Digest) and reference != found.digest:
            message = f"the manifest has the digest {found.digest}, and was pushed as {reference}"
            raise RegistryError(Code.DIGEST_INVALID, message, status=400, detail=str(found.digest))
        pointing = (reference,) if isinstance(reference, Tag) else tuple(tags)
        push = PushedManifest(
            repository,
            found.digest,
            data,
            found.media_type,
            pointing,
            found.blobs,
            found.manifests,
            found.subject,
            found.descriptor,
            tuple(each for each in pointing if self.is_immutable(repository, each.name)),
            _quotas(settings),
            bool(settings.immutable_tags),
        )
        await self._announce(repository, pointing or (push.digest,), "push")
        with answered():
            before = await self.store.put_manifest(push)
        change = Change("push", repository, push.digest, None, push.media_type, len(data))
        for tag, entry in before:
            self.tell(replace(change, tag=tag.name, before=None if entry is None else entry.digest))
        if not before:
            self.tell(change)
        return PutManifest(found.digest, found.subject, tuple(each.name for each in pointing))

    async def delete_tag(self, repository: Repository, tag: Tag) -> None:
        """Remove a tag; the manifest stays."""
        await self._announce(repository, (tag,), "delete")
        with answered():
            entry = await self.store.tag(repository, tag)
            immutable = self.is_immutable(repository, tag.name)
            if not await self.store.delete_tag(repository, tag, immutable=immutable):
                raise unknown_manifest(repository, tag)
        if entry is not None:
            self.tell(Change("delete", repository, Digest.parse(entry.digest), tag.name))

    async def delete_manifest(self, repository: Repository, digest: Digest) -> None:
        """Remove a manifest and its tags; the blobs that it alone names go with the next `gc`."""
        fixed = lambda name: self.is_immutable(repository, name)  # noqa: E731
        await self._announce(repository, (digest,), "delete")
        with answered():
            removed = await self.store.delete_manifest(repository, digest, fixed)
        if removed is None:
            raise unknown_manifest(repository, digest)
        for tag in removed.tags or (None,):
            self.tell(Change("delete", repository, digest, tag))

    async def delete_blob(self, repository: Repository, digest: Digest) -> None:
        """Remove a blob from its repository."""
        with answered():
            if not await self.store.delete_blob(repository, digest):
                raise unknown_blob(repository, digest)

    async def may_add(self, repository: Repository, size: int, claim: Claim | None = None) -> None:
        """Raise RegistryError if a blob of `size` bytes, as far as that is known, would be refused.

        `claim`: that of its upload, by which all uploads that are open keep to the quotas together.
        """
        settings = self.settings(repository)
        if settings.max_blob and size > settings.max_blob:
            message = f"the blob has {size} bytes, and this registry takes {settings.max_blob} (max_blob)"
            raise RegistryError(Code.DENIED, message, status=413)
        with answered():
            await self.store.room.check(repository, size, _quotas(settings), claim)

    async def commit_upload(
        self, repository: Repository, verified: VerifiedFile, digest: Digest | None = None
    ) -> None:
        """Keep the verified file of an upload, as a blob of the repository. The file is moved away.

        `digest`: what the client says, which must be the file's.
        """
        if digest is not None and digest != verified.digest:
            message = f"the upload has the digest {verified.digest}, and not {digest}"
            raise RegistryError(Code.DIGEST_INVALID, message, status=400)
        with answered():
            await self.store.commit_blob(repository, verified, _quotas(self.settings(repository)))

    async def mount(
        self,
        repository: Repository,
        digest: Digest,
        source: Repository | None,
        may_read: Callable[[Repository], Awaitable[bool]],
    ) -> bool:
        """Make a blob of `source` one of the repository; return whether that was done.

        Without `source` it may be any that the client may read (`may_read`). Content that came with an
        account stays with the repositories that its registry gave it to.
        """
        with answered():
            sources = [source] if source is not None else await self.store.sources(digest, MOST_SOURCES)
            for each in sources:
                if await self.store.may_mount(each, digest) and await may_read(each):
                    return await self.store.link_blob(repository, digest, _quotas(self.settings(repository)))
        return False

    def is_immutable(self, repository: Repository, tag: str) -> bool:
        """Return whether a tag of the repository never moves."""
        return any(fnmatchcase(tag, each) for each in self.settings(repository).immutable_tags)

    async def _announce(
        self, repository: Repository, references: Sequence[Tag | Digest], action: str
    ) -> None:
        for call in self.before_change:
            await call(repository, references, action)

    def tell(self, change: Change) -> None:
        """Tell those who listen of a change."""
        for call in self.on_change:
            call(change)


def _quotas(settings: HostedSettings) -> Quotas:
    return Quotas(settings.quota, settings.repository_quota)
