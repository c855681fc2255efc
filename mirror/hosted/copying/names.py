"""Names of images at the two ends of a copy. Pure.

office/app:1.0                a hosted registry of the configuration: its folder
registry.lan:5000/app:1.0     another registry
registry.lan:5000/team/       a target for several images: each keeps its own name below it
"""

from collections.abc import Collection

from msgspec import Struct

from mirror.bundle.model import split_name
from mirror.hosted.copying.places import CopyFailed
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.reference import COMPONENT, DOCKER_HUB, HUB_NAMESPACE, NAME_LENGTH, Tag
from mirror.oci.registries import canonical_host

LATEST = Tag("latest")


class ImagePlace(Struct, frozen=True):
    """An image at a registry. `reference`: None where the name has neither tag nor digest.

    `below`: the name ends with a slash, and stands for a part of the registry; then `path` may be "".
    """

    registry: str
    path: str
    reference: Tag | Digest | None = None
    below: bool = False

    def __str__(self) -> str:
        name = f"{self.registry}/{self.path}" if self.path else self.registry
        if self.below:
            return f"{name}/"
        mark = "@" if isinstance(self.reference, Digest) else ":"
        return name if self.reference is None else f"{name}{mark}{self.reference}"

    def tags_for(self, digest: Digest) -> list[Tag]:
        """Return the tags that an image gets here. Raises CopyFailed if this is the place of another one."""
        if isinstance(self.reference, Digest) and self.reference != digest:
            raise CopyFailed(f"the image has the digest {digest}, and not that of {self}")
        return [self.reference] if isinstance(self.reference, Tag) else []

    def for_image(self, name: str, registries: Collection[str] = ()) -> "ImagePlace":
        """Return the place of one of several images, by the name that an archive or a registry gives it.

        `registries`: names of registries, which are no part of a repository's name, besides those that look
        like a host. Raises CopyFailed for an image that has no name.
        """
        repository, tag, digest = split_name(name)
        if not self.below:
            if self.reference is not None:
                return self
            own = repository if repository and not (tag or digest or "/" in repository) else tag
            return ImagePlace(self.registry, self.path, Tag.parse(own) if own else LATEST)
        first, slash, rest = repository.partition("/")
        path = rest if slash and (first in registries or _is_host(first)) else repository
        if not path or not (slash or tag or digest):
            raise CopyFailed(f"the image {name!r} has no name to keep: give one, such as {self}app:1.0")
        full = f"{self.path}/{path}" if self.path else path
        reference = Digest.parse(digest) if digest and not tag else Tag.parse(tag or LATEST.name)
        return parse_place(f"{self.registry}/{full}{_mark(reference)}", (self.registry,))


def parse_place(text: str, registries: Collection[str]) -> ImagePlace:
    """Parse a name. `registries`: known names of registries, besides all that look like a host.

    A name without a registry is Docker's: `alpine` is docker.io/library/alpine. Raises CopyFailed.
    """
    below = text.endswith("/")
    first, slash, rest = text.partition("/")
    if slash and (first in registries or _is_host(first)):
        path, tag, digest = split_name(rest.removesuffix("/"))
    else:
        if text in registries:
            raise CopyFailed(
                f"{text!r} is a registry: name an image of it, or write {text}/ to keep the names"
            )
        name, tag, digest = split_name(text.removesuffix("/"))
        first, path = DOCKER_HUB, name if "/" in name else f"{HUB_NAMESPACE}/{name}"
    try:
        registry = first if first in registries else canonical_host(first)
        reference = Digest.parse(digest) if digest else (Tag.parse(tag) if tag else None)
    except RegistryError as error:
        raise CopyFailed(f"{text!r:.300}: {error.message}") from None
    whole = path.split("/") if path or not below else []
    if (
        registry is None
        or len(first) + len(path) >= NAME_LENGTH
        or any(COMPONENT.fullmatch(each) is None for each in whole)
    ):
        raise CopyFailed(f"{text!r:.300} is not a name of an image, such as registry.lan/team/app:1.0")
    if below and reference is not None:
        raise CopyFailed(f"{text!r:.300} has a slash behind its tag")
    return ImagePlace(registry, path, reference, below)


def _is_host(text: str) -> bool:
    return text == "localhost" or "." in text or ":" in text


def _mark(reference: Tag | Digest) -> str:
    return f"@{reference}" if isinstance(reference, Digest) else f":{reference}"
