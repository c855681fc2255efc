"""The activity of one worker: what runs, what has ended lately, and how much went through.

It exists only where somebody may look at it. A request that the response cache answers costs nothing here
until its batch is recorded (`mirror.web.fastpath.hit_log`).
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from msgspec import convert

from mirror.metrics.metrics import Metrics
from mirror.transfer.flight import Flight
from mirror.util.callbacks import ignore
from mirror.web.activity.entries import (
    MOST_SAMPLES,
    WAITING,
    ActivityQuestion,
    EndedRequest,
    RunningDownload,
    RunningRequest,
    TrafficSample,
    UpstreamState,
    WorkerActivity,
)
from mirror.web.activity.rates import Rates
from mirror.web.fastpath.hit_log import KnownResponse, SentResponse
from mirror.web.request_log import RequestRecord

# Ended requests that are kept: some minutes of a busy office, and a megabyte.
MOST_ENDED = 1000

# Longest note that is kept of a request.
NOTE_CHARACTERS = 300

# Interval of samples of the traffic, in seconds.
TRAFFIC_SECONDS = 2.0


class Activity:
    """The activity of this process; `worker` is its number.

    `fills` returns the downloads that run now, and `upstreams` the state of the upstreams.
    """

    def __init__(
        self,
        worker: int,
        metrics: Metrics,
        fills: Callable[[], Sequence[Flight]],
        upstreams: Callable[[], list[dict[str, Any]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._worker = worker
        self._metrics = metrics
        self._fills = fills
        self._upstreams = upstreams
        self._clock = clock
        self._running: dict[str, tuple[RequestRecord, float]] = {}
        self._ended: deque[EndedRequest] = deque(maxlen=MOST_ENDED)
        self._traffic: deque[TrafficSample] = deque(maxlen=MOST_SAMPLES)
        self._rates = Rates()
        self.on_ended: Callable[[EndedRequest], object] = ignore

    def begin(self, record: RequestRecord) -> None:
        """Note that a request runs."""
        self._running[record.id] = record, self._clock()

    def end(self, record: RequestRecord, fields: Mapping[str, object]) -> None:
        """Note that a request has ended. `fields`: of its access line."""
        self._running.pop(record.id, None)
        self._add(_ended(fields, self._clock()))

    def note_sent(self, sent: Sequence[SentResponse]) -> None:
        """Note responses that were sent from memory, one entry for those that are alike."""
        groups: dict[tuple[KnownResponse, int, str, tuple[str, ...] | None], list[tuple[float, float]]] = {}
        for response, length, client, times, login in sent:
            names = None if login is None else login.names
            key = (response, length, response.client or client, names)
            groups.setdefault(key, []).append(times)
        for (response, length, client, names), alike in groups.items():
            if response.fields is not None:
                now, seconds = alike[-1]
                fields = {**response.fields, "client": client, "bytes": length, "total_ms": seconds * 1000}
                if names is not None:
                    fields["identity"] = list(names)
                self._add(_ended(fields, now, len(alike)))

    def sample_traffic(self) -> None:
        """Take a sample of the traffic; to be called every TRAFFIC_SECONDS."""
        self._traffic.append(self._sample())

    def snapshot(self, question: ActivityQuestion) -> WorkerActivity:
        """Return the activity now."""
        requests = [self._request(record, began) for record, began in self._running.values()]
        downloads = [self._download(each) for each in self._fills()]
        moving = {_moving(each.digest, source) for each in downloads for source in each.rates}
        self._rates.keep({*(each.id for each in requests), *(each.digest for each in downloads), *moving})
        return WorkerActivity(
            worker=self._worker,
            requests=requests,
            downloads=downloads,
            recent=self._recent(question),
            traffic=self._last_samples(question.samples),
            upstreams=convert(self._upstreams(), list[UpstreamState]),
        )

    def _add(self, ended: EndedRequest) -> None:
        self._ended.append(ended)
        self.on_ended(ended)

    def _recent(self, question: ActivityQuestion) -> list[EndedRequest]:
        found: list[EndedRequest] = []
        for each in reversed(self._ended):
            if len(found) >= question.recent:
                break
            if question.client is None or each.client == question.client:
                found.append(each)
        return found

    def _last_samples(self, count: int) -> list[TrafficSample]:
        return list(islice(self._traffic, max(0, len(self._traffic) - count), None))

    def _sample(self) -> TrafficSample:
        sent = sum(stats.bytes for _, stats in self._metrics.requests.rows())
        sent += sum(_sent(record) for record, _ in self._running.values())
        return TrafficSample(self._clock(), self._metrics.received_bytes(), sent)

    def _request(self, record: RequestRecord, began: float) -> RunningRequest:
        target, sent = record.target, _sent(record)
        repository = None if target is None else target.repository
        reference = None if target is None or target.reference is None else str(target.reference)
        note = None if record.note is None else _encodable(str(record.fields()["note"])[:NOTE_CHARACTERS])
        return RunningRequest(
            id=record.id,
            worker=self._worker,
            client=record.client,
            identity=list(map(_encodable, record.identity.names)),
            kind=record.kind,
            upstream=None if target is None else target.upstream,
            repository=None if repository is None else repository.path,
            reference=reference,
            digest=None if record.digest is None else str(record.digest),
            outcome=record.outcome.value if record.streaming else WAITING,
            why=note,
            began=began,
            sent=sent,
            length=record.length if record.streaming else None,
            rate=self._rates.rate(record.id, sent),
        )

    def _download(self, flight: Flight) -> RunningDownload:
        return RunningDownload(
            worker=self._worker,
            upstream=flight.repository.upstream,
            repository=flight.repository.path,
            digest=str(flight.digest),
            received=flight.progress.received,
            size=flight.progress.size,
            rate=self._rates.rate(str(flight.digest), flight.progress.received),
            clients=len(flight.clients),
            queued=flight.clients.queued,
            prefetch=flight.prefetch,
            sources=dict(flight.progress.connections),
            rates={
                source: self._rates.rate(_moving(str(flight.digest), source), received)
                for source, received in flight.progress.received_from.items()
            },
        )


def _moving(digest: str, source: str) -> str:
    """Return the name of what comes from one source."""
    return f"{digest} from {source}"


def _sent(record: RequestRecord) -> int:
    """Return the bytes of a response's body that have gone out so far."""
    return record.bytes + (0 if record.body is None else record.body.sent)


def _ended(fields: Mapping[str, object], now: float, count: int = 1) -> EndedRequest:
    """Return the entry of a request by the fields of its access line."""
    identity, milliseconds, length = fields.get("identity"), fields["total_ms"], fields["bytes"]
    status = fields["status"]
    return EndedRequest(
        id=str(fields["id"]),
        client=str(fields["client"]),
        identity=[_encodable(str(each)) for each in identity] if isinstance(identity, list) else [],
        kind=str(fields["kind"]),
        upstream=_text(fields, "upstream"),
        repository=_text(fields, "repository"),
        reference=_text(fields, "reference"),
        outcome=str(fields["outcome"]),
        status=status if isinstance(status, int) else 0,
        why=_text(fields, "note"),
        ended=now,
        seconds=milliseconds / 1000 if isinstance(milliseconds, float | int) else 0.0,
        bytes=length if isinstance(length, int) else 0,
        count=count,
    )


def _text(fields: Mapping[str, object], name: str) -> str | None:
    found = fields.get(name)
    return None if found is None else _encodable(str(found)[:NOTE_CHARACTERS])


def _encodable(text: str) -> str:
    """Return a text without halves of characters: JSON of clients may have them, and UTF-8 has not."""
    return text.encode("utf-8", "replace").decode()
