"""Pulls of whole images by the mirror itself, for those that fetch before a client asks."""

from collections.abc import Callable

from mirror.cache.listings import ListingCache
from mirror.cache.pull.budget import Pause, PullBudget
from mirror.cache.pull.puller import ImagePull, Puller
from mirror.cache.pull.source import PullSource
from mirror.cache.pull.walk import Wanted
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.parts.interfaces import ContentStore
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.callbacks import ignore

# All platforms of an image, without its referrers.
EVERYTHING = Wanted()


class ImagePulls:
    """Pulls, what they draw from, and what they may cost."""

    def __init__(
        self, puller: Puller, listings: ListingCache, content: ContentStore, upstreams: UpstreamSet
    ) -> None:
        self._puller = puller
        self._listings = listings
        self._content = content
        self._upstreams = upstreams

    def pull(self, repository: Repository, reference: Tag | Digest, wanted: Wanted = EVERYTHING) -> ImagePull:
        """Return a pull of a whole image, with priority below clients; it begins when it is iterated over."""
        return self._puller.pull(repository, reference, wanted)

    def source(self, wanted: Wanted) -> PullSource:
        """Return a source of several such pulls."""
        return PullSource(self._puller, self._listings, self._content, wanted)

    def budget(self, leave: int, on_pause: Callable[[Pause], object] = ignore) -> PullBudget:
        """Return a budget for pulls, which leaves `leave` pulls of each upstream that counts them."""
        return PullBudget(self._upstreams, leave, on_pause)
