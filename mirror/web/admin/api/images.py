"""Operations about images: search, lists with pages, one image in detail."""

import time
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from mirror.manage.browse.detail import ImageDetail
from mirror.manage.browse.search import FoundTag, RepositoryRow, TagRow, words_of
from mirror.manage.warm.images import WarmImage, parse_image
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import Repository, Tag
from mirror.web.admin.api.operation import ApiError, Audience, NoParameters, Operation
from mirror.web.admin.desk import Desk
from mirror.web.admin.visitors import PageVisitor

Search = Annotated[str, Meta(max_length=200)]
After = Annotated[str, Meta(max_length=600)]
Limit = Annotated[int, Meta(ge=1, le=200)]
Reference = Annotated[str, Meta(min_length=1, max_length=600)]

# Time, in seconds, for which a search goes on if the rules hide most of what it finds.
SEARCH_SECONDS = 1.0

# Time, in seconds, in which the tags of a page of repositories are counted that the rules may hide.
COUNT_SECONDS = 1.0


class ListParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """`search`: words that a name must have. `after`: `next` of the page before. `limit`: rows of a page."""

    search: Search = ""
    after: After = ""
    limit: Limit = 50


class TagParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters as of repositories. `repository`: the only one, `<upstream>/<repository>`."""

    search: Search = ""
    after: After = ""
    limit: Limit = 50
    repository: Annotated[str, Meta(max_length=400)] = ""


class ImageParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """`reference`: the full name of an image, as `docker.io/library/alpine:3.20`, or with a digest."""

    reference: Reference


class RepositoryPage(Struct, frozen=True):
    """Repositories in order of their names. `next`: for the parameter `after`, empty at the end."""

    rows: list[RepositoryRow]
    next: str


class TagPage(Struct, frozen=True):
    """Tags in order of their names. `next`: for the parameter `after`, empty at the end."""

    rows: list[TagRow]
    next: str


class PinRow(Struct, frozen=True):
    """A pin. `since`: in seconds since the epoch. `configured`: it is in the configuration."""

    pattern: str
    platforms: list[str]
    since: float
    configured: bool


class Images:
    """The operations about images."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """Return the operations."""
        return (
            Operation(
                method="GET",
                path="/api/v1/repositories",
                summary="Repositories, with the number of their tags",
                audience=Audience.READERS,
                call=self.repositories,
                parameters=ListParameters,
                answer=RepositoryPage,
            ),
            Operation(
                method="GET",
                path="/api/v1/images",
                summary="Images by tag",
                audience=Audience.READERS,
                call=self.tags,
                parameters=TagParameters,
                answer=TagPage,
            ),
            Operation(
                method="GET",
                path="/api/v1/image",
                summary="One image in detail",
                audience=Audience.READERS,
                call=self.image,
                parameters=ImageParameters,
                answer=ImageDetail,
                errors=(404,),
            ),
            Operation(
                method="GET",
                path="/api/v1/pins",
                summary="Pins",
                audience=Audience.OPERATORS,
                call=self.pins,
                answer=list[PinRow],
            ),
        )

    async def repositories(self, visitor: PageVisitor, wanted: ListParameters) -> RepositoryPage:
        """Return a page of repositories of which the visitor may know."""
        words, after, names = words_of(wanted.search), wanted.after, list[str]()
        until, management = time.monotonic() + SEARCH_SECONDS, self._desk.management
        while len(names) <= wanted.limit and time.monotonic() < until:
            found = await management.names.repositories(words, f"repository:{after}" if after else "")
            if not found:
                after = ""
                break
            visible = await visitor.visible(found)
            names += [each for each in found if each in visible]
            after = found[-1]
        if len(names) > wanted.limit:
            names = names[: wanted.limit]
            after = names[-1]
        return RepositoryPage(await self._counted(visitor, names), after)

    async def tags(self, visitor: PageVisitor, wanted: TagParameters) -> TagPage:
        """Return a page of tags of which the visitor may know."""
        words, after, tags = words_of(wanted.search), wanted.after, list[FoundTag]()
        until, management = time.monotonic() + SEARCH_SECONDS, self._desk.management
        if wanted.repository and not await visitor.visible([_name(wanted.repository)]):
            return TagPage([], "")
        while len(tags) <= wanted.limit and time.monotonic() < until:
            found = await management.names.tags(words, after, wanted.repository)
            if not found:
                after = ""
                break
            visible = await visitor.visible({str(each.repository) for each in found})
            for each in found:
                if len(tags) > wanted.limit:
                    break
                if str(each.repository) in visible and await self._may_pull(visitor, each):
                    tags.append(each)
            after = found[-1].key
        if len(tags) > wanted.limit:
            tags = tags[: wanted.limit]
            after = tags[-1].key
        return TagPage(await management.names.tag_rows(tags), after)

    async def image(self, visitor: PageVisitor, wanted: ImageParameters) -> ImageDetail:
        """Return an image in detail."""
        image = await self.named(visitor, wanted.reference)
        if image.reference is None:
            raise ApiError(422, "name one image, by its tag or digest")
        found = await self._desk.management.images.detail(image.repository, image.reference, time.time())
        if found is None:
            raise _unknown(wanted.reference)
        birth, digest = self._desk.service.cache.images.birth, Digest.parse(found.digest)
        await visitor.authorise_image(image.repository, image.reference, digest, birth)
        return found

    async def _counted(self, visitor: PageVisitor, names: Sequence[str]) -> list[RepositoryRow]:
        """Return the rows of repositories, with the tags that the visitor may pull."""
        if visitor.pulls_all:
            return await self._desk.management.names.repository_rows(names)
        until = time.monotonic() + COUNT_SECONDS
        return [await self._count(visitor, name, until) for name in names]

    async def _count(self, visitor: PageVisitor, name: str, until: float) -> RepositoryRow:
        """Count tags one by one, until a moment of the monotonic clock."""
        count, after = 0, ""
        while found := await self._desk.management.names.tags((), after, name):
            for each in found:
                if time.monotonic() > until:
                    return RepositoryRow(name, count, more=True)
                count += await self._may_pull(visitor, each)
            after = found[-1].key
        return RepositoryRow(name, count)

    async def _may_pull(self, visitor: PageVisitor, found: FoundTag) -> bool:
        """Return whether the rules let the visitor pull a tag, whose image may be too young."""
        birth, tag = self._desk.service.cache.images.birth, Tag(found.tag)
        try:
            await visitor.authorise_image(found.repository, tag, Digest.parse(found.entry.digest), birth)
        except (RegistryError, ValueError):  # ValueError: an entry that cannot be read
            return False
        return True

    async def named(self, visitor: PageVisitor, text: str) -> WarmImage:
        """Return the image that a text names, if the visitor may know of it. Raises ApiError."""
        try:
            image = parse_image(text, self._desk.config.names().names)
        except ValueError as error:
            raise ApiError(422, str(error)) from None
        if not await visitor.visible([str(image.repository)]):
            raise _unknown(text)
        tag = image.reference
        if isinstance(tag, Tag) and not visitor.may_know_tag(image.repository, tag.name):
            raise _unknown(text)
        return image

    async def pins(self, visitor: PageVisitor, _: NoParameters) -> list[PinRow]:
        """Return the pins."""
        found = await self._desk.management.pins.all()
        return [
            PinRow(str(each.pin.images), list(each.pin.platforms), each.since, each.configured)
            for each in found
        ]


def _unknown(text: str) -> ApiError:
    return ApiError(404, f"{text:.200} is not known here", "pull it through the mirror, or fetch it ahead")


def _name(text: str) -> str:
    """Return the name of a repository. Raises ApiError for a text that is none."""
    if "/" not in text.strip("/"):
        raise ApiError(422, f"{text:.200} is no repository: write <upstream>/<repository>")
    return str(Repository(*text.split("/", 1)))
