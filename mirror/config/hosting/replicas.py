"""The options of `[[hosted.mirror_to]]`: other registries that get what is pushed."""

from typing import Annotated, Any

from mirror.config.endpoints import BaseURL, EndpointSettings, check_prefix
from mirror.config.types import Strings
from mirror.config.validation import After, Doc


class ReplicaSettings(EndpointSettings, frozen=True, kw_only=True):
    """Another registry that gets what clients push: queued on the disk, retried, blobs before manifests."""

    url: Annotated[BaseURL, Doc("Base URL of the registry.", examples=["https://backup.lan"])]
    prefix: Annotated[
        str,
        After(check_prefix),
        Doc(
            "Prefix of every repository there: the name of the hosted registry, if it is another mirror.",
            examples=["office"],
        ),
    ] = ""
    repositories: Annotated[
        Strings,
        Doc("Patterns of repositories, without the name of the registry.", examples=[["team/*"]]),
    ] = ("*",)
    deletes: Annotated[bool, Doc("Delete there what clients delete here.")] = False

    def endpoint(self) -> dict[str, Any]:
        """Return the values that the registry has in common with an upstream."""
        return {name: getattr(self, name) for name in EndpointSettings.options()}
