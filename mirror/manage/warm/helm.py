"""Helm charts: their manifests, by `helm template`."""

import shutil
import subprocess
from pathlib import Path

from mirror.manage.warm.listed import ListError

# Time that `helm template` may take, in seconds: a chart may fetch nothing, and is rendered in a second.
SECONDS = 120.0


def is_chart(path: Path) -> bool:
    """Return whether a path is a chart: a folder with a Chart.yaml, or a packed chart."""
    return path.name.endswith((".tgz", ".tar.gz")) or (path / "Chart.yaml").is_file()


def render(path: Path) -> str:
    """Return the manifests of a chart with its default values. Raises ListError."""
    helm = shutil.which("helm")
    if helm is None:
        raise ListError(
            f"{path} is a Helm chart, and helm is not installed here. Install it, or render the chart "
            "elsewhere: helm template CHART > manifests.yaml, and then --from manifests.yaml"
        )
    command = [helm, "template", "warm", str(path.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ListError(f"{path}: helm template failed: {error}") from None
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise ListError(
            f"{path}: helm template failed: {reason}\nWith values of your own: "
            "helm template CHART --values FILE | registry-mirror warm --from -"
        )
    return done.stdout.decode(errors="replace")
