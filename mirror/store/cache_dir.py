"""The cache directory: blobs, index, partials and pins of one folder, as blocking calls.

<cache folder>/           0700
    blobs/                verified blobs and their entries
    books/                the index: links, tag entries, referrers, repositories; locked by the housekeeper
    partial/              fills that are running or were interrupted, and leases
    uploads/, pushes/     pushes that are not finished (partial/upload.py); their journal (hosted/)
    replication/, webhooks/    queues to other registries and to webhooks (hosted/replication, hosted/notify)
    quarantine/           corrupt files
    pins, kept            the pins (pins/pin_file.py), and what they name (pins/manifest_journal.py)
    version               version of this layout
    savings.db            what was served and not fetched, by day (metadata/savings_book.py)
    tokens, token-uses    tokens of clients, and their last use (tokens/token_file.py)
    tokens-revoked        digests of tokens that were revoked, for other mirrors (tokens/token_file.py)
    mirror-identity       identity among the mirrors of a shared tier (transfer/shared/identity.py)
    generation            epochs of removals, pins, access, pushes; shared by all processes (invalidation.py)
    proofs                which blobs were sent and proven lately, shared likewise (blobs/proof_table.py)
    evicting              locked during an eviction or a change of pins (eviction.py)
    books-lost, rebuild, restoring/    marks: a database was lost, a restore did not end (recovery.py)
    warm-runs             the last scheduled fetch of each list (manage/warm/job_state.py)
    scrub.cursor, .lock   where the scrub stands, and the process that scrubs (scrub.py)

`guard.py` has the table of what is a miss on a failing disk, `eviction.py` that of who evicts what.
"""

import shutil
from pathlib import Path

from mirror.config.schema import CacheSettings
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.proof_table import ProofTable
from mirror.store.blobs.quota import Quota
from mirror.store.eviction import Evictor
from mirror.store.folder.fills import FillFiles
from mirror.store.folder.housekeeper import Housekeeper
from mirror.store.folder.pinning import Pinning
from mirror.store.folder.reader import ContentReader
from mirror.store.folder.writer import ContentWriter
from mirror.store.health import StoreHealth
from mirror.store.invalidation import Epoch
from mirror.store.metadata.hosted_names import HostedNames
from mirror.store.metadata.index import Index
from mirror.store.pins.pins import Pins
from mirror.store.recovery import Recovery


class CacheDirectory:
    """One cache folder, in parts. Every method may be called from any thread; all of them block."""

    def __init__(
        self, path: Path, settings: CacheSettings | None = None, health: StoreHealth | None = None
    ) -> None:
        """Open or create everything. `settings` give the quota, None for no quota."""
        self.path = path
        self.rules = () if settings is None else settings.rules
        self.partials = path / "partial"
        self.health = health or StoreHealth()
        self.durable = settings is None or settings.durability == "safe"
        self.blobs = BlobStore(path / "blobs", path / "quarantine")
        self.index = Index(path / "books")
        self.recovery = Recovery(path, (self.blobs.database, self.index.database), self.health)
        self.recovery.open()
        self.blobs.retention.hosted_among = HostedNames(self.index).linked_among
        self.epoch = Epoch(path / "generation")
        self.proofs = ProofTable(path / "proofs")
        self.blobs.on_entry_dropped = self.epoch.note_removal
        self.recreated = False  # a part was recreated, and lacks the pins of the configuration
        self.recovery.on_repaired = self._repaired
        self.reader = ContentReader(self.blobs, self.index, self.recovery)
        self.pins = Pins(path, self.index, self.reader.read, self.epoch)
        # The last process here may have been killed between a write and the note about the write.
        self.epoch.note_pin_change()
        total = shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).total
        quota = Quota() if settings is None else Quota.for_disk(settings, total)
        self.evictor = Evictor(path, self.blobs, self.pins, self.epoch, quota)
        self.writer = ContentWriter(
            self.blobs, self.index, self.evictor, self.pins, self.epoch, self.partials, durable=self.durable
        )
        self.fills = FillFiles(self.partials, self.blobs, self.reader, self.evictor)
        self.pinning = Pinning(self.pins, self.evictor)
        self.housekeeper = Housekeeper(path / "books")

    def open_connections(self) -> None:
        """Open this thread's database connections, which its first call would do otherwise."""
        self.blobs.table.size()
        self.index.repositories("", "", 1)

    def _repaired(self) -> None:
        self.epoch.reopen()
        self.recreated = True

    def close(self) -> None:
        """Close this thread's connections. No thread may use the folder afterwards."""
        self.epoch.close()
        self.proofs.close()
        self.blobs.close()
        self.index.close()
