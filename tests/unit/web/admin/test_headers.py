"""Headers of the pages."""

from mirror.web.admin.headers import API_HEADERS, COMMON, PAGE_HEADERS, STATIC_HEADERS


def test_no_page_runs_or_loads_what_is_not_its_own() -> None:
    """No page is framed by another one."""
    policy = COMMON["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "data:" not in policy


def test_only_files_of_the_package_are_cached() -> None:
    assert API_HEADERS["Cache-Control"] == PAGE_HEADERS["Cache-Control"] == "no-store"
    assert "immutable" in STATIC_HEADERS["Cache-Control"]
