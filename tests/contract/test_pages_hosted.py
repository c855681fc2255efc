"""Images that were pushed here, on the pages: they are removed as others are, and never fetched."""

import json
from pathlib import Path

from mirror.access.rules import Action
from tests.contract.hosting import hosting
from tests.contract.test_pages_access import token
from tests.fakes.pusher import Pusher
from tests.paged import Paged, paged
from tests.wire import Reply

NAME = "office/app:1"


async def change(mirror: Paged, method: str, path: str, admin: str) -> Reply:
    body = json.dumps({"reference": NAME}).encode()
    headers = ("X-Registry-Mirror: 1", "Content-Type: application/json", admin)
    return await mirror.ask(f"/api/v1/{path}", *headers, method=method, body=body)


async def test_hosted_image_is_shown_and_removed(tmp_path: Path) -> None:
    """A plan says what it frees; after the removal its tag is gone for clients too."""
    async with paged(await hosting(tmp_path)) as mirror, await Pusher.open(mirror.address) as pusher:
        await pusher.image("1", b"layer")
        admin = await token(mirror, "me", Action.ADMIN)
        (row,) = (await mirror.api("images", admin))["rows"]
        assert (row["reference"], row["missing"]) == (NAME, 0)
        assert (await change(mirror, "POST", "warm", admin)).status == 422
        assert (await change(mirror, "POST", "pins", admin)).status == 200
        assert (await change(mirror, "DELETE", "image", admin)).status == 409
        assert (await change(mirror, "DELETE", "pins", admin)).status == 200
        plan = await mirror.api(f"removal?reference={NAME}", admin)
        removed = await change(mirror, "DELETE", "image", admin)
        assert json.loads(removed.body) == plan
        assert plan["images"] == [NAME]
        assert (await mirror.ask(f"/api/v1/image?reference={NAME}", admin)).status == 404
