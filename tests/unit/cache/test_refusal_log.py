"""Log lines about refusals: one at the beginning, one at the end."""

from structlog.testing import capture_logs

from mirror.cache.refusal_log import RefusalLog


def test_refusal_is_logged_once_and_its_end_once() -> None:
    """However many tags are served stale; and an upstream that refused nothing is not spoken of."""
    now = [0.0]
    refusals = RefusalLog(lambda: now[0])
    with capture_logs() as lines:
        refusals.answered("quay.io")
        for _ in range(3):
            refusals.refused("docker.io", "no")
        now[0] = 7.0
        refusals.answered("docker.io")
        refusals.answered("docker.io")
    assert [(line["log_level"], line["upstream"]) for line in lines] == [
        ("warning", "docker.io"),
        ("info", "docker.io"),
    ]
