"""The options of hosted registries: what clients push to this mirror, and what is kept for good."""

from typing import Annotated

from msgspec import Meta

from mirror.config.hosting.replicas import ReplicaSettings
from mirror.config.hosting.retention import RetentionSettings
from mirror.config.hosting.webhooks import WebhookSettings
from mirror.config.types import Duration, HostName, Hosts, Size, Strings
from mirror.config.validation import After, Doc, Settings
from mirror.oci.reference import COMPONENT, HUB_NAMESPACE
from mirror.oci.registries import is_public_registry, split_port

# A manifest must be in memory as a whole, once for each client that pushes one.
LARGEST_MANIFEST = 64 * 1024 * 1024


def _check_name(value: str) -> str:
    """Refuse what no client can write in front of a repository, and names that stand for something else."""
    if COMPONENT.fullmatch(value) is None or value == "_catalog":
        raise ValueError(
            f"{value!r:.80} is not the first part of a repository name, for instance office or registry.lan"
        )
    if is_public_registry(split_port(value)[0]):
        raise ValueError(f"{value!r} is a public registry, which is no place for images of your own")
    if value == HUB_NAMESPACE:
        raise ValueError(f"{value!r} is the namespace of Docker's own images: choose another name")
    return value


def _check_max_manifest(value: int) -> int:
    # A registry must take manifests of 4 MiB: OCI distribution-spec, "Pushing Manifests".
    if not 4 * 1024 * 1024 <= value <= LARGEST_MANIFEST:
        raise ValueError("must be between 4MiB and 64MiB")
    return value


class HostedSettings(Settings, frozen=True, kw_only=True):
    """Registries of your own beside the mirror: clients push to them, and what they push is kept."""

    name: Annotated[
        HostName,
        After(_check_name),
        Doc(
            "Name of the registry, and the first part of its repositories: `docker push "
            "mirror.lan/office/app`. It hides repositories of the default upstream that begin with the same "
            "word.",
            examples=["office"],
        ),
    ]
    hosts: Annotated[
        Hosts,
        Doc(
            "Names of this mirror that stand for the registry, as Host headers: `docker push "
            "registry.lan/app`.",
            examples=[["registry.lan"]],
        ),
    ] = ()
    quota: Annotated[
        Size,
        Doc(
            "Room for everything that is pushed; a push beyond it is refused. A blob of several repositories "
            "counts once.",
            examples=["200GiB"],
            zero="no limit",
        ),
    ] = 0
    repository_quota: Annotated[
        Size, Doc("Room for each repository.", examples=["20GiB"], zero="no limit")
    ] = 0
    immutable_tags: Annotated[
        Strings,
        Doc(
            "Patterns of tags that never move: a push of another manifest to such a tag is refused, and so "
            "is its deletion.",
            examples=[["v*.*.*"]],
        ),
    ] = ()
    max_manifest: Annotated[
        Size, After(_check_max_manifest), Doc("Largest manifest that is taken.", examples=["8MiB"])
    ] = 4 * 1024 * 1024
    max_blob: Annotated[Size, Doc("Largest blob that is taken.", examples=["10GiB"], zero="no limit")] = 0
    upload_expiry: Annotated[
        Duration,
        Doc("Time after which an upload that a client does not continue is removed.", examples=["2h"]),
    ] = 24 * 3600
    retention: Annotated[
        tuple[RetentionSettings, ...],
        Doc(
            "Which tags stay; without it all do.",
            examples=[[{"tags": ["pr-*"], "keep_last": 5, "keep_pulled": "30d"}]],
        ),
    ] = ()
    webhooks: Annotated[
        tuple[WebhookSettings, ...],
        Doc(
            "Addresses that get notifications of pushes, deletions and first pulls.",
            examples=[[{"url": "https://ci.lan/hook", "secret_file": "/etc/registry-mirror/hook.secret"}]],
        ),
    ] = ()
    mirror_to: Annotated[
        tuple[ReplicaSettings, ...],
        Doc(
            "Other registries that get what is pushed.",
            examples=[[{"url": "https://backup.lan", "prefix": "office"}]],
        ),
    ] = ()
    max_uploads: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        Doc(
            "Most uploads that may be open at a time, of all clients together. One repository, and one "
            "client, has a quarter of them at most, or 100 if that is more. Where all are open, one "
            "that is unused, of the client with the most, gives way to a client with fewer."
        ),
    ] = 10_000

    def claims(self) -> list[tuple[str, str]]:
        """Return the names and hosts that no other registry may have, each with this registry's name."""
        return [(each, self.name) for each in (self.name, *self.hosts)]
