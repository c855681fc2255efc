"""Names of imported images: full ones of bundles, and those of other programs' archives, completed."""

from collections.abc import Mapping

from msgspec import Struct

from mirror.bundle.errors import BundleError, shown
from mirror.bundle.model import split_name
from mirror.oci.errors import RegistryError
from mirror.oci.image_pattern import ImagePattern, is_literal
from mirror.oci.reference import COMPONENT, NAME_LENGTH, TAG, Repository
from mirror.oci.registries import canonical_host


class ImageName(Struct, frozen=True, order=True):
    """A repository, and a tag in it; "" for an image that only its digest names."""

    repository: Repository
    tag: str = ""


class Namer(Struct, frozen=True):
    """The names of an import.

    `names`: names and aliases of the configured registries, and their canonical names. `given`: the name that
    the operator gives to the images of a foreign archive: a registry, or an image; "" for none.
    """

    names: Mapping[str, str]
    given: str = ""

    def of_bundle(self, name: str) -> ImageName:
        """Return the name that a bundle's image has here. Raises BundleError."""
        repository, tag, _ = split_name(name)
        return ImageName(self.repository(repository), tag)

    def repository(self, name: str) -> Repository:
        """Return a repository by its full name, such as `quay.io/org/app`. Raises BundleError."""
        host, _, path = name.partition("/")
        try:
            upstream = self.names.get(host.lower()) or canonical_host(host)
        except RegistryError:
            upstream = None
        if upstream is None or len(name) > NAME_LENGTH:
            raise BundleError(f"{shown(name)} is not a name of a repository")
        if any(COMPONENT.fullmatch(each) is None for each in path.split("/")):
            raise BundleError(f"{shown(name)} is not a name of a repository")
        return Repository(upstream, path)

    def of_archive(self, name: str) -> ImageName:
        """Return the name of an image of a foreign archive. Raises BundleError if it needs a name.

        Names are completed as Docker does: `app` is docker.io/library/app:latest.
        """
        if self.given.lower() in self.names:
            if not name or _is_tag(name):
                raise BundleError(f"{_image_words(name)} needs a name: --as {self.given}/NAME")
            return self._parsed(name if self._has_host(name) else f"{self.given}/{name}")
        if self.given:
            tag = name if _is_tag(name) else split_name(name)[1]
            has_tag = bool(split_name(self.given)[1] or split_name(self.given)[2])
            return self._parsed(self.given if has_tag or not tag else f"{self.given}:{tag}")
        if not name or _is_tag(name):
            raise BundleError(f"{_image_words(name)} has no name of an image in it: give one with --as")
        return self._parsed(name)

    def _has_host(self, name: str) -> bool:
        first, slash, _ = name.partition("/")
        return bool(slash) and (first.lower() in self.names or any(mark in first for mark in ".:"))

    def _parsed(self, name: str) -> ImageName:
        try:
            images = ImagePattern.parse(name, self.names)
        except ValueError as error:
            raise BundleError(str(error)) from None
        tag = "" if images.digest is not None else images.tag
        if not is_literal(images.name.replace("[[]", "")) or not is_literal(tag):
            raise BundleError(f"{shown(name)} is a pattern, and not a name")
        repository = self.repository(images.name.replace("[[]", "["))
        return ImageName(repository, tag)


def _is_tag(name: str) -> bool:
    """Return whether the name that an archive gives is a tag alone, as skopeo and oras write it: `1.2`."""
    return "/" not in name and ":" not in name and TAG.fullmatch(name) is not None


def _image_words(name: str) -> str:
    return f"the image {shown(name)!r}" if name else "an image"
