"""The commands that bring images into a registry: `copy`, `push`, `retag`."""

import os
import shlex
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from mirror.cli.common import fail, import_before_becoming_owner, loaded
from mirror.cli.options import AsJson, CacheDir, Command, ConfigFile
from mirror.cli.output import tell

if TYPE_CHECKING:
    from mirror.cli.progress import ProgressView
    from mirror.config.schema import Config
    from mirror.hosted.copying.archive_source import ArchiveSource
    from mirror.hosted.copying.copier import Copied
    from mirror.hosted.copying.ends import CopyEnds
    from mirror.hosted.copying.names import ImagePlace
    from mirror.hosted.copying.places import CopySource
    from mirror.oci.digest import Digest
    from mirror.store.cache_dir import CacheDirectory

COPY_HELP = """Copy images into a hosted registry, or into any other registry.

\b
    registry-mirror copy ./layout office/app:1.0
    registry-mirror copy lab.tar office/
    registry-mirror copy docker-daemon:app:dev registry.lan:5000/app:1.0
    registry-mirror copy quay.io/org/app:1.0 office/app:1.0 --referrers
    registry-mirror copy office/app:1.0 office/db:2 backup.lan/
    docker save app:dev | registry-mirror copy - office/app:1.0

SOURCE is the folder of an OCI image layout, a file that `export`, docker save, skopeo, crane or buildx wrote,
- for standard input, docker-daemon:IMAGE, or an image of a registry. TARGET is an image of a registry, or
ends with a slash: then each image keeps its name below it. A name of [[hosted]] is the folder of the mirror
on this machine, which may run meanwhile; all other registries are asked over HTTP, with the login of
[[upstream]], or else of docker login.

Only what the target lacks is sent, and what it has in another repository is mounted. All platforms come
along; signatures and SBOMs with --referrers. What was sent stays: a copy that was interrupted goes on when it
is repeated. The tag is written last.

The exit status is 0 if all images are there, and 1 if one is not.
"""

RETAG_HELP = """Give an image of a hosted registry a further name; no bytes move.

\b
    registry-mirror retag office/app:rc office/app:1.0
    registry-mirror retag office/team/app:1.0 office/released/app:1.0 --referrers
    registry-mirror retag office/app@sha256:... office/app:1.0

A tag that immutable_tags protects stays. In another repository the image counts in its quota. A running
mirror serves the new name at once.
"""

Arguments = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE... TARGET", help="Images, and where they go.", show_default=False),
]
Referrers = Annotated[
    bool, typer.Option("--referrers", help="Bring signatures, attestations and SBOMs, too.")
]
PlainHTTP = Annotated[
    bool, typer.Option("--plain-http", help="Ask registries that are not configured by http.")
]
LoginFile = Annotated[
    str | None,
    typer.Option(
        "--authfile",
        metavar="FILE",
        help="Logins, as docker login writes them. Default: those of this user.",
        show_default=False,
    ),
]
Realm = Annotated[
    list[str] | None,
    typer.Option(
        "--realm",
        metavar="URL",
        help="Origin of a token server that may get the login, where it is not the registry's; repeatable.",
        show_default=False,
    ),
]
Socket = Annotated[
    str | None,
    typer.Option(
        "--docker-socket",
        metavar="PATH",
        envvar="DOCKER_HOST",
        help="Socket of docker-daemon:. Default: $DOCKER_HOST, or else /var/run/docker.sock.",
        show_default=False,
        show_envvar=False,
    ),
]

DAEMON = "docker-daemon:"

# What the commands import after this process has become the owner of the cache.
IMPORTED = (
    "mirror.bundle.archives.opening",
    "mirror.cli.progress",
    "mirror.hosted.copying.archive_source",
    "mirror.hosted.copying.copier",
    "mirror.hosted.copying.ends",
    "zstandard",
)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("copy", cls=Command, help=COPY_HELP)(copy_images)
    app.command("push", cls=Command, help=COPY_HELP.replace("registry-mirror copy", "registry-mirror push"))(
        copy_images
    )
    app.command("retag", cls=Command, help=RETAG_HELP)(retag)


def copy_images(
    names: Arguments,
    referrers: Referrers = False,
    plain_http: PlainHTTP = False,
    authfile: LoginFile = None,
    realm: Realm = None,
    docker_socket: Socket = None,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    if len(names) < 2:
        fail("one or more sources and a target are needed: registry-mirror copy SOURCE TARGET", 2)
    settings = loaded(config, {"cache_dir": cache_dir}).config
    target = _place(names[-1], settings)
    import_before_becoming_owner(IMPORTED)
    with ExitStack() as stack:
        # Before this process becomes the owner of the cache, who may not read what its caller can.
        sources = [(each, _source(each, settings, docker_socket, stack)) for each in names[:-1]]
        used: list[Any] = [target, *(each for _, each in sources if isinstance(each, Struct))]
        folder = _folder(used, settings, stack)
        logins = _logins(authfile, realm or [])
        copying = _Copying(settings, folder, logins, plain_http=plain_http)
        registries = settings.names().names
        _run(copying, _jobs(sources, target, registries, stack), referrers=referrers, as_json=as_json)


def retag(
    source: Annotated[str, typer.Argument(metavar="IMAGE", help="An image of a hosted registry.")],
    target: Annotated[str, typer.Argument(metavar="NEW", help="Its further name.")],
    referrers: Referrers = False,
    config: ConfigFile = None,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    settings = loaded(config, {"cache_dir": cache_dir}).config
    places = _place(source, settings), _place(target, settings)
    hosted = {each.name for each in settings.hosted}
    for each in places:
        if each.registry not in hosted or each.below:
            fail(f"{each} is no image of a hosted registry: registry-mirror copy is for others", 2)
    with ExitStack() as stack:
        job = _Job(source, places[1].for_image(source), place=places[0])
        folder = _folder(list(places), settings, stack)
        _run(_Copying(settings, folder, {}), [job], referrers=referrers, as_json=as_json)


class _Job:
    """One image to copy: from a registry (`place`), or from an open archive (`source`, `digest`)."""

    def __init__(
        self,
        name: str,
        target: "ImagePlace",
        place: "ImagePlace | None" = None,
        source: "CopySource | None" = None,
        digest: "Digest | None" = None,
    ) -> None:
        self.name = name if str(target) == name else f"{name} -> {target}"
        self.target = target
        self.place = place
        self.source = source
        self.digest = digest


class _Copying:
    """The ends of a command."""

    def __init__(
        self,
        settings: "Config",
        folder: "CacheDirectory | None",
        logins: dict[str, Any],
        *,
        plain_http: bool = False,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._logins = logins
        self._plain_http = plain_http

    @asynccontextmanager
    async def opened(self) -> "AsyncIterator[CopyEnds]":
        """Open the ends, in the event loop."""
        from mirror.hosted.copying.ends import CopyEnds

        settings = self._settings
        ends = CopyEnds(
            settings.upstreams, settings.hosted, self._folder, self._logins, plain_http=self._plain_http
        )
        try:
            yield ends
        finally:
            await ends.close()

    def queue_replicas(self, job: _Job) -> None:
        """Queue an image that came to a hosted registry for those that it is replicated to."""
        found = (
            each for each in self._settings.hosted if each.name == job.target.registry and each.mirror_to
        )
        for each in found:
            from mirror.hosted.replication.target import queue_change
            from mirror.oci.reference import Repository

            if self._folder is not None and job.digest is not None:
                repository = Repository(each.name, job.target.path)
                queue_change(self._folder, each, repository, job.target.reference or job.digest)


def _run(copying: _Copying, jobs: list[_Job], *, referrers: bool, as_json: bool) -> None:
    """Copy all images, one after another; the command ends with 1 if one fails."""
    from mirror.cli.progress import run_interruptible, shown

    async def operation() -> int:
        with shown(len(jobs), as_json=as_json) as view:
            async with copying.opened() as ends:
                failed = []
                for each in jobs:
                    if await _copy(ends, each, view, referrers=referrers):
                        copying.queue_replicas(each)
                    else:
                        failed.append(each)
            view.done(failed_images=len(failed))
            return len(failed)

    again = f"Repeat the command to go on: {shlex.join(['registry-mirror', *sys.argv[1:]])}"
    failed = run_interruptible(operation(), again)
    if failed and not as_json:
        tell(f"{failed} of {len(jobs)} images are not there.")
    if failed:
        raise SystemExit(1)


async def _copy(ends: "CopyEnds", job: _Job, view: "ProgressView", *, referrers: bool) -> bool:
    """Copy one image; return whether that was done."""
    from mirror.hosted.copying.copier import Copier
    from mirror.hosted.copying.places import CopyFailed
    from mirror.oci.errors import RegistryError
    from mirror.store.errors import StoreError
    from mirror.upstream.errors import UpstreamError
    from mirror.util.progress.amounts import ImageProgress, ProgressAmount

    def show(done: int, total: int) -> None:
        view.update(ImageProgress(job.name, ProgressAmount(done, total)))

    try:
        source, digest = job.source, job.digest
        if job.place is not None:
            source, digest = await ends.source(job.place)
        if source is None or digest is None:
            raise AssertionError("a job without a source")
        tags = job.target.tags_for(digest)
        copier = Copier(source, ends.target(job.target), referrers=referrers)
        found = await copier.copy(digest, tags, show)
    except (CopyFailed, UpstreamError, StoreError, RegistryError, OSError) as error:
        view.update(ImageProgress(job.name, state="failed", reason=_reason(error)))
        return False
    view.update(_result(job.name, found))
    job.digest = digest
    return True


def _result(name: str, copied: "Copied") -> Any:
    from mirror.util.progress.amounts import ImageProgress, ProgressAmount

    size = ProgressAmount(copied.size, copied.size)
    items = ProgressAmount(copied.sent + copied.manifests, copied.sent + copied.manifests)
    return ImageProgress(name, size, items, state="present" if copied.nothing else "done")


def _reason(error: Exception) -> str:
    from mirror.store.errors import reason_of

    return reason_of(error) if isinstance(error, OSError) else str(error)


def _place(text: str, settings: "Config") -> "ImagePlace":
    """Parse the name of an image at a registry; the command ends with 2 for a wrong one."""
    from mirror.hosted.copying.names import parse_place
    from mirror.hosted.copying.places import CopyFailed

    try:
        return parse_place(text, settings.names().names)
    except CopyFailed as error:
        fail(str(error), 2)


def _source(name: str, settings: "Config", socket: str | None, stack: ExitStack) -> Any:
    """Open a file, or the stream of the daemon; return a folder as a path, and an image as its place."""
    from mirror.bundle.archives.opening import open_regular
    from mirror.bundle.errors import BundleError
    from mirror.hosted.copying.docker_daemon import SOCKET, saved_image
    from mirror.hosted.copying.places import CopyFailed

    try:
        if name == "-":
            return sys.stdin.buffer
        if name.startswith(DAEMON):
            return stack.enter_context(saved_image(name.removeprefix(DAEMON), socket or SOCKET))
        if not (name.startswith(("/", "./", "../")) or Path(name).exists()):
            return _place(name, settings)
        path = Path(name).absolute()
        return path if path.is_dir() else stack.enter_context(open_regular(path))
    except (CopyFailed, BundleError) as error:
        fail(str(error), 1)


def _jobs(
    sources: list[tuple[str, Any]], target: "ImagePlace", registries: Collection[str], stack: ExitStack
) -> list[_Job]:
    """Return the images of all sources; what is unpacked goes with the stack."""
    from mirror.hosted.copying.archive_source import archive_source
    from mirror.hosted.copying.places import CopyFailed

    found: list[_Job] = []
    try:
        for name, source in sources:
            if isinstance(source, Struct):
                goal = target.for_image(str(source), registries)
                found.append(_Job(name, goal, place=source))  # type: ignore[arg-type]
            else:
                archive = stack.enter_context(archive_source(source))
                found += _images_of_file(name, archive, target, registries)
    except CopyFailed as error:
        fail(str(error), 1)
    if len({str(each.target) for each in found}) < len(found):
        fail(f"several images would have one name: end the target with a slash, as {target.registry}/", 2)
    return found


def _images_of_file(
    name: str, source: "ArchiveSource", target: "ImagePlace", registries: Collection[str]
) -> list[_Job]:
    """Return the images of a file, a folder, standard input or the Docker daemon."""
    for note in source.notes:
        tell(f"Note: {name}: {note}")
    if not source.images:
        fail(f"{name} has no image", 1)
    roots = {each.root.digest for each in source.images}
    single = len(roots) == 1 and target.reference is not None
    return [
        _Job(
            each.name or name, target.for_image(each.name, registries), source=source, digest=each.root.digest
        )
        for each in (source.images[:1] if single else source.images)
    ]


def _folder(places: "list[ImagePlace]", settings: "Config", stack: ExitStack) -> "CacheDirectory | None":
    """Open the folder of the cache if one of the names is a hosted one."""
    hosted = {each.name for each in settings.hosted}
    if not any(each.registry in hosted for each in places):
        return None
    return stack.enter_context(_opened_folder(settings))


@contextmanager
def _opened_folder(settings: "Config") -> "Iterator[CacheDirectory]":
    from mirror.cli.common import opened_folder

    with opened_folder(settings) as management:
        yield management.folder


def _logins(authfile: str | None, realms: list[str]) -> dict[str, Any]:
    """Return the options by which registries that are not configured are asked with a login."""
    from mirror.config.loader import environment
    from mirror.hosted.copying.ends import docker_config

    file = Path(authfile) if authfile is not None else docker_config(environment())
    if authfile is not None and not (os.access(authfile, os.R_OK) and Path(authfile).is_file()):
        fail(
            f"--authfile {authfile}: no such file, or not for this user, who is the cache's owner under sudo",
            2,
        )
    return {**({"docker_config": str(file)} if file else {}), **({"realms": realms} if realms else {})}
