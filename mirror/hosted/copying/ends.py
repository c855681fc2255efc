"""The ends of a copy, made of names: clients of registries, and repositories of the folder."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mirror.config.endpoints import UpstreamSettings
from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted.copying.folder_ends import FolderSource, FolderTarget
from mirror.hosted.copying.names import LATEST, ImagePlace
from mirror.hosted.copying.places import CopyFailed, CopySource, CopyTarget
from mirror.hosted.copying.registry_ends import RegistrySource, RegistryTarget
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.push_writer import PushWriter
from mirror.upstream.pushing.push_client import PushClient
from mirror.upstream.registry_client import RegistryClient

# Hosts that are asked by http unless the configuration says otherwise.
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class CopyEnds:
    """The registries that a command copies between. `folder`: None where no hosted name is used."""

    def __init__(
        self,
        upstreams: Iterable[UpstreamSettings],
        hosted: Iterable[HostedSettings],
        folder: CacheDirectory | None,
        logins: Mapping[str, object],
        *,
        plain_http: bool = False,
    ) -> None:
        """`logins`: options of an upstream, for registries that the configuration does not name."""
        self._upstreams = {each.name: each for each in upstreams}
        self._hosted = {each.name: each for each in hosted}
        self._folder = folder
        self._logins = logins
        self._plain_http = plain_http
        self._metrics = Metrics()
        self._readers: dict[str, RegistryClient] = {}
        self._writers: dict[str, PushClient] = {}
        self._mounts: dict[str, dict[Digest, str]] = {}
        self._pushes: PushWriter | None = None

    async def source(self, place: ImagePlace) -> tuple[CopySource, Digest]:
        """Return the repository of an image, and the image's digest. Raises CopyFailed."""
        reference = place.reference or LATEST
        if place.registry in self._hosted:
            repository = Repository(place.registry, place.path)
            source = FolderSource(self._open_folder(), repository)
            digest = await source.tagged(reference) if isinstance(reference, Tag) else reference
            if digest is None:
                raise CopyFailed(f"{repository} has no tag {reference}: registry-mirror ls {repository}")
            return source, digest
        client, path = self._reader(place.registry), self._path(place)
        if isinstance(reference, Digest):
            return RegistrySource(client, path), reference
        return RegistrySource(client, path), (await client.get_manifest(path, reference)).digest

    def target(self, place: ImagePlace) -> CopyTarget:
        """Return the repository that an image is brought to."""
        if place.registry in self._hosted:
            repository = Repository(place.registry, place.path)
            folder = self._open_folder()
            self._pushes = self._pushes or PushWriter(folder, HostedIndex(folder))
            return FolderTarget(folder, repository, self._hosted[place.registry], self._pushes)
        writer = self._writers.get(place.registry)
        if writer is None:
            writer = self._writers[place.registry] = PushClient(self._settings(place.registry), self._metrics)
        mounts = self._mounts.setdefault(place.registry, {})
        return RegistryTarget(writer, self._path(place), mounts)

    async def close(self) -> None:
        """Close all connections."""
        for reader in self._readers.values():
            await reader.close()
        for writer in self._writers.values():
            await writer.close()

    def _open_folder(self) -> CacheDirectory:
        if self._folder is None:
            raise AssertionError("a hosted name without the folder")
        return self._folder

    def _reader(self, registry: str) -> RegistryClient:
        client = self._readers.get(registry)
        if client is None:
            client = self._readers[registry] = RegistryClient(self._settings(registry), self._metrics)
        return client

    def _path(self, place: ImagePlace) -> str:
        prefix = self._settings(place.registry).prefix
        return f"{prefix}/{place.path}" if prefix else place.path

    def _settings(self, registry: str) -> UpstreamSettings:
        known = self._upstreams.get(registry)
        if known is not None:
            return known
        host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdigit() else registry
        scheme = "http" if self._plain_http or host in LOOPBACK else "https"
        values = {"name": registry, "url": f"{scheme}://{registry}", **self._logins}
        return UpstreamSettings.model_validate(values)


def docker_config(environment: Mapping[str, str]) -> Path | None:
    """Return the file with this user's logins, as docker, podman and skopeo know it; None without one."""
    named = environment.get("REGISTRY_AUTH_FILE")
    folder = environment.get("DOCKER_CONFIG")
    runtime, home = environment.get("XDG_RUNTIME_DIR"), environment.get("HOME")
    candidates = [
        *([Path(named)] if named else []),
        *([Path(folder, "config.json")] if folder else []),
        *([Path(home, ".docker", "config.json")] if home else []),
        *([Path(runtime, "containers", "auth.json")] if runtime else []),
    ]
    return next((each for each in candidates if os.access(each, os.R_OK)), None)
