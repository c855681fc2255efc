"""Targets of replication (what they get: test_replicator)."""

from pathlib import Path

from mirror.config.hosting.replicas import ReplicaSettings
from mirror.hosted.replication.target import ReplicaTarget
from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory


def test_target_takes_its_repositories_and_has_a_queue_of_its_own(tmp_path: Path) -> None:
    folder = CacheDirectory(tmp_path / "cache")
    try:
        settings = [
            ReplicaSettings.model_validate({"url": "https://a.lan", "repositories": ["team/*"]}),
            ReplicaSettings.model_validate({"url": "https://a.lan", "prefix": "x"}),
        ]
        first, second = (ReplicaTarget("office", each, folder) for each in settings)
        assert first.wants(Repository("office", "team/app"))
        assert not first.wants(Repository("office", "app"))
        assert not first.wants(Repository("other", "team/app"))
        assert first.key != second.key
    finally:
        folder.close()


def test_password_of_a_target_is_in_no_text() -> None:
    values = {"url": "https://a.lan", "username": "us", "password": "canary-secret"}
    settings = ReplicaSettings.model_validate(values)
    assert "canary-secret" not in repr(settings)
    assert settings.endpoint()["username"] == "us"
