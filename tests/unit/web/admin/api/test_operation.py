"""Operations of the API."""

from mirror.web.admin.api.operation import Audience, Operation


async def nothing() -> None:
    """Do nothing."""


def test_operation_has_a_name_by_method_and_path() -> None:
    """Each name is one operation's."""
    read = Operation(
        method="GET", path="/api/v1/activity/stream", summary="", audience=Audience.READERS, call=nothing
    )
    change = Operation(
        method="DELETE", path="/api/v1/image", summary="", audience=Audience.ADMINS, call=nothing
    )
    assert (read.name, read.writes) == ("get_activity_stream", False)
    assert (change.name, change.writes) == ("delete_image", True)
