"""Photos that wait for the model, in a queue of limited length."""

import dataclasses
import threading
from collections import deque
from concurrent.futures import Future

from genhmr_jax.io.images import Photo
from genhmr_jax.recover.server.limits import busy


@dataclasses.dataclass(eq=False)
class Job:
    """A decoded photo on its way to an answer.

    Attributes:
      photo: pixels, and the focal length of EXIF; None once its people are detected.
      format: of the answer, one of answers.FORMATS.
      camera: options of this photo alone: "fov" or "focal", if the client gave one.
      answer: what becomes of it.
      abandoned: nobody waits for the answer any more.
    """

    photo: Photo | None
    format: str
    camera: dict[str, float]
    answer: Future = dataclasses.field(default_factory=Future)
    abandoned: bool = False


class JobQueue:
    """Jobs in the order of their arrival. Threads may use it at the same time."""

    def __init__(self, places: int) -> None:
        self._places, self._closed = places, False
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def closed(self) -> bool:
        """Whether no more jobs are accepted."""
        return self._closed

    def check(self) -> None:
        """Raise Refusal if there is no place now."""
        if self._closed:
            raise busy("is stopping", 503)
        if len(self._jobs) >= self._places:
            raise busy("has no place in its queue")

    def put(self, job: Job) -> None:
        """Append a job.

        Raises:
          Refusal: every place is taken, or the queue is closed.
        """
        with self._changed:
            self.check()
            self._jobs.append(job)
            self._changed.notify()

    def abandon(self, job: Job) -> bool:
        """Free the place of a job for which nobody waits any more; whether it had one.

        A job that is taken already goes on until its next step.
        """
        with self._changed:
            job.abandoned = True
            try:
                self._jobs.remove(job)
                return True
            except ValueError:
                return False

    def take(self, most: int) -> list[Job]:
        """Wait for a job, and take up to `most`; none once the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]

    def close(self) -> None:
        """Accept no more jobs. Those that wait are still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
