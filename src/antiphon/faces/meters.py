"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import Scope

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Meters:
    """The meters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        here = self._registry
        self._requests = Counter("antiphon_requests", "Requests answered.", ["route", "status"], registry=here)
        self._seconds = Histogram(
            "antiphon_request_seconds", "Seconds to the last byte.", ["route"], buckets=_SECONDS, registry=here
        )
        self._rows = Histogram(
            "antiphon_batch_rows", "Answers decoded together, of every batch.", ["kind"], buckets=_ROWS, registry=here
        )
        self.tokens = Counter("antiphon_tokens", "Tokens answered, end marks counted.", registry=here)
        self._waiting = Gauge("antiphon_waiting", "Answers that wait.", registry=here)
        self._decoding = Gauge("antiphon_decoding", "Answers being decoded.", registry=here)

    def watch(self, waiting: Callable[[], float], decoding: Callable[[], float]) -> None:
        """Where the gauges read from."""
        self._waiting.set_function(waiting)
        self._decoding.set_function(decoding)

    def batch(self, kind: str, rows: int) -> None:
        """A batch was decoded; of streams it is one step, and so a token for each."""
        self._rows.labels(kind).observe(rows)
        if kind == "stream":
            self.tokens.inc(rows)

    def request(self, scope: Scope, status: int, seconds: float) -> None:
        """A request was answered. Its route, not its path, is its label: paths are endless."""
        route = getattr(scope.get("route"), "path", "none")
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self) -> tuple[bytes, str]:
        """What Prometheus reads, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
