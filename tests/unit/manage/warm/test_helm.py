"""Helm charts, rendered by the real helm where there is one."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from mirror.manage.warm.helm import is_chart, render
from mirror.manage.warm.listed import ListError
from mirror.manage.warm.source import read_source

CHART = "apiVersion: v2\nname: app\nversion: 1.0.0\n"
VALUES = "image: nginx\ntag: '1.27'\n"
TEMPLATE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  template:
    spec:
      containers:
        - name: app
          image: "{{ .Values.image }}:{{ .Values.tag }}"
"""


def real_helm() -> str | None:
    """Return a helm: that of PATH, or the newest that the matrix of clients has installed."""
    clients = Path.home() / ".cache/registry-mirror/clients"
    found = [str(each) for each in sorted(clients.glob("helm-*/helm"))] if clients.is_dir() else []
    return shutil.which("helm") or (found[-1] if found else None)


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(CHART)
    (folder / "values.yaml").write_text(VALUES)
    (folder / "templates/app.yaml").write_text(TEMPLATE)
    return folder


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Make a program called helm the only one on PATH besides those of the system."""
    program = folder / "bin" / "helm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def test_chart_is_rendered_by_helm(chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are those of the default values."""
    helm = real_helm()
    if helm is None:
        pytest.skip("helm is not installed: .ci/clients installs it")
    monkeypatch.setenv("PATH", f"{Path(helm).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = read_source(str(chart), {})
    assert [each.text for each in found.entries] == ["nginx:1.27"]
    assert found.entries[0].place.startswith(f"helm template {chart}:")


def test_chart_without_helm_says_what_to_do(
    chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ListError, match=r"helm is not installed here.*helm template CHART > "):
        render(chart)


def test_chart_that_helm_refuses_is_an_error(
    chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(monkeypatch, tmp_path, "echo 'values are missing' >&2; exit 1")
    with pytest.raises(ListError, match="helm template failed: values are missing"):
        render(chart)


def test_chart_is_told_by_its_files(chart: Path, tmp_path: Path) -> None:
    assert is_chart(chart)
    assert is_chart(Path("app-1.0.tgz"))
    assert not is_chart(tmp_path)
