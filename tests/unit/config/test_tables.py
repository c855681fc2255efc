"""The layout of the file: one more list of named tables is one more row, for the loader and the reference."""

import tomllib
from pathlib import Path
from typing import Annotated

import pytest

from mirror.config import reference
from mirror.config.endpoints import SourceSettings
from mirror.config.hosting.replicas import ReplicaSettings
from mirror.config.hosting.retention import RetentionSettings
from mirror.config.hosting.webhooks import WebhookSettings
from mirror.config.loader import ConfigError, load
from mirror.config.logins import AccountSettings
from mirror.config.schema import Config, TagRuleSettings
from mirror.config.tables import (
    LAYOUT,
    NAMED_TABLES,
    SECTIONS,
    UPSTREAM,
    Layout,
    NamedTable,
    Pairs,
    inner_tables,
)
from mirror.config.types import Strings
from mirror.config.validation import Doc, Settings

HOME = {"HOME": "/home/me"}


class Step(Settings, frozen=True, kw_only=True):
    """A step of a job."""

    run: Annotated[str, Doc("Command.", examples=["true"])]


class Job(Settings, frozen=True, kw_only=True):
    """A job with steps."""

    name: Annotated[str, Doc("Name of the job.", examples=["nightly"])]
    at: Annotated[str, Doc("Time of day.", examples=["03:00"])]
    images: Annotated[Strings, Doc("Images.", examples=[["alpine"]])] = ()
    steps: Annotated[tuple[Step, ...], Doc("Steps.", examples=[[{"run": "true"}]])] = ()


class WithJobs(Config, frozen=True, kw_only=True):
    """A configuration with one more list."""

    jobs: tuple[Job, ...] = ()


JOB = NamedTable(
    section="job",
    field="jobs",
    key="name",
    model=Job,
    example="nightly",
    presets={"weekly": {"at": "00:00"}},
    canonical={"sunday": "weekly"},
    pairs=Pairs("at", "nightly=03:00"),
)
WITH_JOBS = Layout(WithJobs, SECTIONS, (UPSTREAM, JOB))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mirror.toml"


def jobs(file: Path, text: str = "", env: dict[str, str] | None = None, **flags: object) -> list[Job]:
    file.write_text(text)
    config = load(file, {**HOME, **(env or {})}, flags, WITH_JOBS).config
    assert isinstance(config, WithJobs)
    return list(config.jobs)


def refused(file: Path, text: str, env: dict[str, str] | None = None, **flags: object) -> list[str]:
    with pytest.raises(ConfigError) as error:
        jobs(file, text, env, **flags)
    return [line.replace(f"file {file}: ", "") for line in str(error.value).splitlines()]


def test_layout_finds_lists_of_tables_by_their_type() -> None:
    """Sections, upstreams, and what is in them."""
    assert LAYOUT.names() == [*SECTIONS, *(each.section for each in NAMED_TABLES)]
    assert LAYOUT.inner_tables() == {
        "rules": TagRuleSettings,
        "accounts": AccountSettings,
        "sources": SourceSettings,
        "retention": RetentionSettings,
        "webhooks": WebhookSettings,
        "mirror_to": ReplicaSettings,
    }
    assert dict(inner_tables(Job)) == {"steps": Step}
    assert (LAYOUT.table("tags"), LAYOUT.table("upstream"), LAYOUT.table_of_field("upstreams")) == (
        None,
        UPSTREAM,
        UPSTREAM,
    )


def test_layout_named_tables_come_on_top_of_presets(file: Path) -> None:
    """Named ones first; another name of a preset is the preset; keys that are not given stay."""
    assert [(each.name, each.at) for each in jobs(file)] == [("weekly", "00:00")]
    text = '[[job]]\nname = "nightly"\nat = "03:00"\n[[job]]\nname = "sunday"\nimages = ["a", "b"]\n'
    assert [(each.name, each.at, each.images) for each in jobs(file, text)] == [
        ("nightly", "03:00", ()),
        ("weekly", "00:00", ("a", "b")),
    ]
    found = jobs(file, text, {"REGISTRY_MIRROR_JOBS": "x=1, weekly=02:00"}, jobs=["nightly=04:00"])
    assert [(each.name, each.at) for each in found] == [
        ("nightly", "04:00"),
        ("x", "1"),
        ("weekly", "02:00"),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[job]\n", "job: write [[job]], with two brackets"),
        ("[[job]]\n", 'job: each one needs a name: [[job]] and then name = "nightly"'),
        ('[[job]]\nname = "a"\n', "job.a.at: is missing"),
        ('[[job]]\nname = "a"\nat = "1"\ntype = 1\n', "job.a.type: there is no such key; there are at"),
        ('[[job]]\nname = "a"\nat = "1"\n[[job.steps]]\nrun = 1\n', "job.a.steps.1.run: must be text"),
        ('[[job]]\nname = "weekly"\n[[job]]\nname = "sunday"\n', "job.weekly: is named twice"),
        ("[[jobs]]\n", "jobs: there is no such key; did you mean job?"),
    ],
)
def test_layout_errors_name_the_table(file: Path, text: str, line: str) -> None:
    """Section, name and key, with what to write."""
    (found,) = refused(file, text)
    assert found.startswith(line)


def test_layout_errors_name_the_short_form(file: Path) -> None:
    """The flag or the variable, and its form."""
    form = "must be NAME=AT, for instance nightly=03:00"
    assert refused(file, "", {"REGISTRY_MIRROR_JOBS": "x"}) == [f"environment REGISTRY_MIRROR_JOBS: {form}"]
    assert refused(file, "", jobs=["x"]) == [f"--job: {form}"]


def test_layout_origins_are_told_by_table(file: Path) -> None:
    """The origin of each key, inner tables included, for `config show`."""
    file.write_text('[[job]]\nname = "a"\nat = "1"\n[[job.steps]]\nrun = "x"\n')
    origins = load(file, HOME, {}, WITH_JOBS).origins
    assert {key: origins[key] for key in ("job.a.at", "job.a.steps.1.run")} == {
        "job.a.at": f"file {file}:3",
        "job.a.steps.1.run": f"file {file}:5",
    }


def test_layout_reference_goes_by_the_rows() -> None:
    """Presets as they are; without presets an example that is commented out; and the page."""
    parsed = tomllib.loads(reference.toml(WITH_JOBS))
    assert parsed["job"] == [{"name": "weekly", "at": "00:00", "images": []}]
    assert "#   [[job.steps]]\n" in reference.toml(WITH_JOBS)
    without_presets = Layout(
        WithJobs, SECTIONS, (UPSTREAM, NamedTable("job", "jobs", "name", Job, "nightly", note="A `note`."))
    )
    text = reference.toml(without_presets)
    assert "job" not in tomllib.loads(text)
    assert (
        '# A job with steps.\n#\n# A note.\n#\n#   [[job]]\n#   # Name of the job.\n#   name = "nightly"'
        in text
    )
    page = reference.page(without_presets)
    for each in ("## [[job]]\n\nA job with steps.\n\nA `note`.\n", "### `job.at`", "### `job.steps.run`"):
        assert each in page
    assert "Preconfigured" not in page.partition("## [[job]]")[2]


def test_layout_of_the_product_is_complete() -> None:
    """Each section and each list is a field of the configuration, and the other way round."""
    fields = [*LAYOUT.sections, *(row.field for row in LAYOUT.tables)]
    assert sorted(fields) == sorted(Config.options())
    for row in LAYOUT.tables:
        assert row.model.options()[row.key].required
