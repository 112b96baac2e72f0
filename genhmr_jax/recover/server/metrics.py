"""What the server counts, in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
GROUPS = (1, 2, 3, 4, 6, 8)


class Metrics:
    """The counters of one server."""

    def __init__(self, waiting: Callable[[], int], held: Callable[[], int]) -> None:
        """Start at zero.

        Args:
          waiting: the number of photos in the queue.
          held: bytes of bodies that are held.
        """
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        about = "Requests of /v1/recover by status; 499: the client went away."
        self._requests = Counter("genhmr_requests", about, ["status", "format"], registry=registry)
        about = "Seconds from the head of a request to its answer, of those with status 200."
        self._seconds = Histogram(
            "genhmr_request_seconds", about, buckets=SECONDS, registry=registry
        )
        about = "Photos that were solved together."
        self._groups = Histogram("genhmr_group_photos", about, buckets=GROUPS, registry=registry)
        self._people = Counter("genhmr_people", "People that were recovered.", registry=registry)
        Gauge("genhmr_queue_photos", "Photos in the queue.", registry=registry).set_function(
            waiting
        )
        Gauge("genhmr_upload_bytes", "Bytes of bodies in memory.", registry=registry).set_function(
            held
        )

    def request(self, status: int, format: str, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(str(status), format).inc()
        if status == 200:
            self._seconds.observe(seconds)

    def group(self, photos: int, people: int) -> None:
        """Count photos that are solved together."""
        self._groups.observe(photos)
        self._people.inc(people)

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self._registry)
