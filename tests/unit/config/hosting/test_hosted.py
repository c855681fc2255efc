"""Options of `[[hosted]]` tables."""

from pathlib import Path

import pytest

from mirror.config.loader import ConfigError, load
from mirror.config.schema import Config
from mirror.oci.reference import Repository, parse_target

X = 'name = "x"\nhosts = ["a.lan"]\n'


def loaded(folder: Path, text: str) -> Config:
    file = folder / "mirror.toml"
    file.write_text(text)
    return load(file, {}, {}).config


def test_hosted_tables_are_read(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[[hosted]]\nname = "office"\nhosts = ["registry.lan"]\nquota = "1GiB"\n')
    (found,) = config.hosted
    assert (found.name, found.quota, found.max_manifest) == ("office", 1024**3, 4 * 1024**2)
    names = config.names()
    assert names.hosted == {"office"}
    assert "office" in names.names
    assert "office" not in names.mirrored  # nothing of it can be fetched ahead
    for path, ns, host in (
        ("/v2/office/a/b/manifests/t", None, "mirror.lan"),
        ("/v2/a/b/manifests/t", "office", "mirror.lan"),
        ("/v2/a/b/manifests/t", None, "registry.lan:5000"),
    ):
        assert parse_target(names, path, ns, host).repository == Repository("office", "a/b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "Office"', "is not a host name in lower case"),
        ('name = "office:5000"', "is not the first part of a repository name"),
        ('name = "library"', "the namespace of Docker's own images"),
        ('name = "public.ecr.aws"', "is a public registry"),
        ('name = "index.docker.io"', "is a public registry"),
        ('name = "office"\nmax_manifest = "1MiB"', "must be between 4MiB and 64MiB"),
        ('name = "office"\nmax_uploads = 0', "max_uploads"),
        ('name = "r.lan"\n[[upstream]]\nname = "r.lan"\nurl = "http://r"', "is claimed by"),
        (
            f'{X}[[upstream]]\nname = "r"\nurl = "http://r"\nhosts = ["a.lan"]',
            "a.lan is claimed by r and by x",
        ),
        (f'{X}[[hosted]]\nname = "y"\nhosts = ["a.lan"]', "a.lan is claimed by x and by y"),
        ('name = "x"\nhosts = ["quay.io"]', "quay.io is claimed by"),
    ],
)
def test_hosted_tables_that_are_wrong_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """A name stands for one registry, whichever way a client names it."""
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, f"[[hosted]]\n{text}\n")
