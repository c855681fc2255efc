"""Documents that are true: options, commands, metrics, links, names and snippets in them exist as written."""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from msgspec.structs import replace
from prometheus_client import Counter, Gauge

from mirror.cli.program import app
from mirror.config.loader import load
from mirror.config.tables import LAYOUT, PRECONFIGURED
from mirror.config.validation import Settings
from mirror.metrics.metrics import Metrics

ROOT = Path(__file__).parent.parent.parent
OPTIONS = (ROOT / "config" / "mirror.toml").read_text()
README = (ROOT / "README.md").read_text()
CHINESE = (ROOT / "README.zh.md").read_text()
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), ROOT / "findings" / "README.md"])
SNIPPETS = sorted((ROOT / "config" / "clients").iterdir())

COMMANDS = (
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/registry-mirror serve",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def pages() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", PAGES, ids=name_of)


# The readme


def test_readme_is_short() -> None:
    """At most 160 lines, as in projects whose readme is read to its end."""
    assert len(README.splitlines()) <= 160


@pytest.mark.parametrize("text", [README, CHINESE], ids=["english", "chinese"])
def test_readme_has_the_two_commands(text: str) -> None:
    """Word for word; the start is the first command of all, and CI runs the second one too."""
    commands = re.findall(r"^    (?!\w+ ──)(.+)$", text, re.MULTILINE)
    assert commands[0] == COMMANDS[0]
    assert COMMANDS[1] in commands
    assert COMMANDS[1] in (ROOT / ".ci" / "run").read_text()


def test_chinese_readme_has_the_same_blocks() -> None:
    """The code that is fenced is the same, but for the diagram."""
    blocks = r"```(?:sh|json|toml)\n.*?```"
    assert re.findall(blocks, CHINESE, re.DOTALL) == re.findall(blocks, README, re.DOTALL)


# Options


def test_options_file_is_the_defaults() -> None:
    """Loading config/mirror.toml changes nothing but where the options come from."""
    env = {"HOME": "/home/me"}
    read, presets = load(ROOT / "config" / "mirror.toml", env, {}).config, load(None, env, {}).config
    assert replace(read, origins={}) == replace(presets, origins={})


def sections() -> dict[str, str]:
    """Return the text of each section of the file, the first [[upstream]] as `upstream`, and so on.

    A table that has no presets is there as a comment.
    """
    parts = re.split(r"^(#   )?\[+(\w+)\]+$", OPTIONS, flags=re.MULTILINE)
    found: dict[str, str] = {}
    for comment, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        found.setdefault(name, re.sub("^#   ", "", text, flags=re.MULTILINE) if comment else text)
    return found


@pytest.mark.parametrize("section", LAYOUT.names())
def test_options_file_has_every_option(section: str) -> None:
    """Each has a value and a comment above, and is commented out where there is no default to show."""
    row = LAYOUT.table(section)
    model = LAYOUT.sections[section] if row is None else row.model
    lines = sections()[section].splitlines()
    for key in model.options():
        (number,) = (n for n, each in enumerate(lines) if re.match(rf"(# )?{key} = ", each))
        assert re.match(r"# \S.*\S", lines[number - 1]), f"no comment: {lines[number]}"


def test_options_file_has_every_preconfigured_upstream() -> None:
    """The order is the same."""
    listed = [each["name"] for each in tomllib.loads(OPTIONS)["upstream"]]
    assert listed == list(PRECONFIGURED)


def option_names() -> set[str]:
    named = {row.section: row.model for row in LAYOUT.tables}
    models: dict[str, type[Settings]] = {**LAYOUT.sections, **named, **LAYOUT.inner_tables()}
    return {f"{section}.{key}" for section, model in models.items() for key in model.options()}


@pages()
def test_options_named_in_documents_exist(path: Path) -> None:
    """Every `section.key` in backticks, with or without a value behind it, is an option."""
    named = re.findall(rf"`((?:{'|'.join(LAYOUT.names())})\.[a-z_]+)[`= ]", path.read_text())
    assert set(named) <= option_names() | {"cache.trouble"}  # a key of /readyz


# Commands


def subcommands() -> dict[str, Any]:
    """Return all commands by name, `config check` as such, and the program itself as the empty name."""
    top: Any = typer.main.get_command(app)
    found = {"": top}
    for name in top.commands:
        _, command, _ = top.resolve_command(typer.Context(top), [name])
        found[name] = command
        found.update({f"{name} {each}": inner for each, inner in getattr(command, "commands", {}).items()})
    return found


def commands_in(text: str) -> Iterator[str]:
    """Yield what follows `registry-mirror` on command lines, in blocks and in backticks."""
    for line in re.findall(
        r"(?:^    |`)(?:sudo )?(?:-u \S+ )?(?:\S*/)?registry-mirror( [^`\n]*)", text, re.MULTILINE
    ):
        yield re.split(r"\s{2,}|\s+#| [;&|]", line.strip())[0]


@pages()
def test_commands_in_documents_exist(path: Path) -> None:
    """Each subcommand, and each option that is given to it, is one of the program's."""
    known = subcommands()
    for line in commands_in(path.read_text()):
        words = line.split()
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), "")
        assert name or not words[0].isalpha(), f"no such command: {line}"
        options = {each for parameter in known[name].params for each in [*parameter.opts, "--help"]}
        used = {word.strip("[]").partition("=")[0] for word in words if word.strip("[]").startswith("-")}
        assert used <= options, f"no such option: {line}"


@pytest.mark.parametrize("page", ["storage.md", "offline.md", "scaling.md"])
def test_options_of_commands_in_prose_exist(page: str) -> None:
    """An option in backticks, on a page that is about this program alone, belongs to some command."""
    parameters = [parameter for command in subcommands().values() for parameter in command.params]
    options = {option for parameter in parameters for option in parameter.opts}
    named = {each.split()[0] for each in re.findall(r"`(--[a-z][^`]*)`", (DOCS / page).read_text())}
    assert named <= options | {"--help"}


# Metrics


def metric_names() -> set[str]:
    body = Metrics().render()[0].decode()
    names = set(re.findall(r"^# TYPE (registry_mirror_\w+) ", body, re.MULTILINE))
    return {name for name in names if not name.endswith("_created")}


@pages()
def test_metrics_named_in_documents_exist(path: Path) -> None:
    """Each name in a document is one of the code's."""
    assert set(re.findall(r"registry_mirror_[a-z_]+", path.read_text())) <= metric_names()


def metrics_table() -> dict[str, list[str]]:
    """Return the labels of each metric in the table of docs/operations.md."""
    rows = re.findall(
        r"^\| `(registry_mirror_\w+)` \|([^|]*)\|", (DOCS / "operations.md").read_text(), re.MULTILINE
    )
    return {name: re.findall(r"`(\w+)`", labels) for name, labels in rows}


def test_metrics_table_has_every_metric() -> None:
    """Each has its row."""
    assert set(metrics_table()) == metric_names()


def test_metrics_table_has_the_labels() -> None:
    """The labels are those of the code, in the same order."""
    table = metrics_table()
    for metric in vars(Metrics()).values():
        if isinstance(metric, Counter | Gauge):
            name = f"{metric._name}_total" if isinstance(metric, Counter) else metric._name
            assert table[name] == list(metric._labelnames), name


# Messages


@cache
def messages() -> tuple[str, ...]:
    """Return all texts of the program, placeholders left out."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "mirror").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return tuple(
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def quoted_messages() -> list[str]:
    """Return the texts in the first column of the table of the mirror's messages."""
    section = (DOCS / "operations.md").read_text().partition("### What the mirror says\n")[2]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [each for cell in cells for each in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("text", quoted_messages())
def test_messages_quoted_in_documents_exist(text: str) -> None:
    """Each is part of a text of the program."""
    assert any(text in each for each in messages())


# Snippets


def parsed(text: str, kind: str) -> Any:
    return json.loads(text) if kind == "json" else tomllib.loads(text)


def fenced(path: Path) -> list[tuple[str, str]]:
    """Return kind and text of each block with a kind."""
    return re.findall(r"^```(\w+)\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


@pages()
def test_snippets_parse(path: Path) -> None:
    """A reader who pastes one gets no syntax error."""
    for kind, text in fenced(path):
        if kind in ("json", "toml"):
            assert parsed(text, kind)


@pages()
def test_snippets_of_the_configuration_are_valid(path: Path, tmp_path: Path) -> None:
    """Each TOML block of the mirror's own sections is accepted, with files that are here."""
    secret, keys, file = tmp_path / "password", tmp_path / "keys", tmp_path / "mirror.toml"
    secret.write_text("# a secret of all mirrors")
    keys.write_text('{"keys": []}')
    for kind, text in fenced(path):
        if kind == "toml" and set(parsed(text, kind)) <= {*LAYOUT.names()}:
            plain = re.sub(r"^(tls|client)_\w+ = .*$", "", text, flags=re.MULTILINE)
            plain = re.sub(r'jwks_file = ".*"', f'jwks_file = "{keys}"', plain)
            file.write_text(re.sub(r'(?<!jwks)(_file|htpasswd) = ".*"', rf'\1 = "{secret}"', plain))
            assert load(file, {"HOME": "/home/me"}, {}).config


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.name)
def test_client_snippets_equal_their_files(path: Path) -> None:
    """Each file of config/clients is a block of docs/clients.md, but for comments; both parse."""
    text = path.read_text()
    if path.suffix in (".json", ".toml", ".conf"):
        assert parsed(text, path.suffix.removeprefix(".").replace("conf", "toml"))
    blocks = [without_comments(block) for _, block in fenced(DOCS / "clients.md")]
    assert without_comments(text) in blocks


# Links and names


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages()
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link names a file of the repository, and each anchor a heading of its page."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        assert page.exists(), f"no such file: {target}"
        assert not anchor or anchor in anchors(page), f"no such heading: {target}"


@cache
def files() -> frozenset[str]:
    """Return all files of the repository and their folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a clone")
    names = [Path(each) for each in listed.stdout.splitlines()]
    return frozenset({str(each) for name in names for each in (name, *name.parents)})


@pages()
def test_paths_in_documents_exist(path: Path) -> None:
    """Each path in backticks below a folder of the repository is there."""
    folders = r"(?:mirror|tests|docs|config|systemd|findings|\.ci)/[\w./-]+"
    for named in re.findall(rf"`({folders})(?:::[\w.]+)?[` ]", path.read_text()):
        assert named.rstrip("/") in files(), f"no such path: {named}"


@cache
def definitions(path: Path) -> set[str]:
    """Return functions, classes, `Class.member` and constants that a module defines."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.Assign):
            found |= {each.id for each in node.targets if isinstance(each, ast.Name)}
        if isinstance(node, ast.ClassDef):
            inner = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}.{each.name}" for each in inner}
    return found


@pages()
def test_names_in_documents_exist(path: Path) -> None:
    """Each `file.py::Name` is defined in that file."""
    for file, name in re.findall(r"`(mirror/[\w/]+\.py)::([\w.]+)`", path.read_text()):
        assert name in definitions(ROOT / file), f"{file} has no {name}"


def test_index_of_documents_is_complete() -> None:
    """docs/README.md links each page beside itself."""
    listed = set(re.findall(r"\]\((\w+\.md)\)", (DOCS / "README.md").read_text()))
    assert listed == {each.name for each in DOCS.glob("*.md")} - {"README.md"}


# Invariants


def test_invariants_are_numbered_1_to_12() -> None:
    """docs/architecture.md has them under their heading, in order."""
    text = (DOCS / "architecture.md").read_text()
    section = text.partition("## Invariants\n")[2].partition("\n## ")[0]
    assert re.findall(r"^(\d+)\. ", section, re.MULTILINE) == [str(number) for number in range(1, 13)]


def test_invariants_cited_by_code_and_documents_exist() -> None:
    """Each "invariant N" is one of the twelve."""
    cited = r"[Ii]nvariants? ((?:\d+)(?:(?:, | and | to )\d+)*)"
    for path in [*(ROOT / "mirror").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *PAGES]:
        for numbers in re.findall(cited, path.read_text()):
            assert all(1 <= int(each) <= 12 for each in re.findall(r"\d+", numbers)), f"{path}: {numbers}"


def test_documents_cited_by_code_exist() -> None:
    """Each `docs/page.md` in a docstring, a comment or a text is there."""
    for path in [*(ROOT / "mirror").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for cited in re.findall(r"docs/\w+\.md", path.read_text()):
            assert (ROOT / cited).exists() or path == Path(__file__), f"{path} cites {cited}"
