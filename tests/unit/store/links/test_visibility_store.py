from pathlib import Path

from mirror.oci.reference import Repository
from mirror.store.metadata.visibility import PublicMark
from mirror.store.store import Store

APP = Repository("quay.io", "org/app")


async def test_visibility_store_is_shared_by_processes(tmp_path: Path) -> None:
    one, other = await Store.open(tmp_path), await Store.open(tmp_path)
    await one.links.visibility.put(APP, PublicMark(5.0))
    assert await other.links.visibility.mark(APP) == PublicMark(5.0)
    assert set(await other.links.visibility.between(str(APP), str(APP))) == {str(APP)}
    before = other.links.visibility.removals()
    await one.links.visibility.withdraw(APP)
    assert await other.links.visibility.mark(APP) is None
    assert other.links.visibility.removals() != before
    for store in (one, other):
        await store.close()
