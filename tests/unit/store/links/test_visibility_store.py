from pathlib import Path

from mirror.oci.reference import Repository
from mirror.store.metadata.visibility import PublicMark
from mirror.store.store import Store

APP = Repository("quay.io", "org/app")


async def test_visibility_store_is_shared_by_processes(tmp_path: Path) -> None:
    one, other = await Store.open(tmp_path), await Store.open(tmp_path)
    await one.metadata.visibility.put(APP, PublicMark(5.0))
    assert await other.metadata.visibility.mark(APP) == PublicMark(5.0)
    assert set(await other.metadata.visibility.between(str(APP), str(APP))) == {str(APP)}
    before = other.metadata.visibility.removals()
    await one.metadata.visibility.withdraw(APP)
    assert await other.metadata.visibility.mark(APP) is None
    assert other.metadata.visibility.removals() != before
    for store in (one, other):
        await store.close()
