"""The collector skips what a run of tests has collected, and works during the tests."""

import gc

from tests.memory import c_function


def test_collector_skips_what_is_collected() -> None:
    """Modules and collected tests are not looked at again."""
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000


def test_function_that_this_c_library_lacks_does_nothing() -> None:
    """Other libraries than glibc have no malloc_trim."""
    assert c_function("no_such_function")(1, 2) == 0
