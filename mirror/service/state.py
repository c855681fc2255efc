"""The state of the mirror, for /readyz and the pages."""

from typing import TYPE_CHECKING, Any

from mirror.store.blobs.room_watch import RoomWatch
from mirror.store.health import StoreHealth
from mirror.upstream.upstream_set import UpstreamSet

if TYPE_CHECKING:
    from mirror.shared.tier import SharedTier


class ServiceState:
    """The state of what a service consists of, as values that JSON knows."""

    def __init__(
        self, upstreams: UpstreamSet, health: StoreHealth, room: RoomWatch, tier: "SharedTier | None"
    ) -> None:
        self._upstreams = upstreams
        self._health = health
        self._room = room
        self._tier = tier

    def upstreams(self) -> dict[str, Any]:
        """Return the state of each upstream."""
        return self._upstreams.state()

    def shared(self) -> dict[str, Any] | None:
        """Return the state of the shared tier; None where nothing is shared."""
        return None if self._tier is None else self._tier.state()

    def troubles(self) -> list[dict[str, Any]]:
        """Return what is wrong with the cache folder."""
        faults: list[dict[str, Any]] = [
            {
                "what": each.capability.value,
                "kind": each.kind.value,
                "reason": each.reason,
                "to_do": each.advice,
                "since": each.since,
            }
            for each in self._health.faults()
        ]
        if (shortage := self._room.current) is not None:
            words = {"reason": shortage.reason, "to_do": shortage.to_do, "since": self._room.since}
            faults.append({"what": "keeping", "kind": "no_room", **words})
        return faults
