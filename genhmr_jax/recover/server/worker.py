"""The thread that owns the model: it takes the photos that wait, and recovers them together.

While a group of photos is recovered, the next ones arrive. The group is therefore as large as the
load, and a photo that comes alone does not wait for others.
"""

import contextlib
import dataclasses
import threading
from concurrent.futures import InvalidStateError, ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import Photo
from genhmr_jax.io.terminal import complain
from genhmr_jax.recover.options import RecoverOptions
from genhmr_jax.recover.overlapped import THREADS, TOGETHER, outcome, solved_group
from genhmr_jax.recover.people import People
from genhmr_jax.recover.photo import ROWS, PreparedPhoto, Recoverer
from genhmr_jax.recover.report import panel
from genhmr_jax.recover.server.answers import answer
from genhmr_jax.recover.server.jobs import Job, JobQueue
from genhmr_jax.recover.server.limits import PHOTO, Refusal
from genhmr_jax.recover.server.metrics import Metrics


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


@dataclasses.dataclass(frozen=True)
class Ready:
    """A photo whose people are to be solved. focal_from and panel: see answers.answer."""

    photo: PreparedPhoto
    focal_from: str
    panel: UInt8[np.ndarray, "h w 3"] | None


class Worker:
    """Recovers the jobs of a queue, in its own thread and a pool for preparation and answers.

    Attributes:
      ready: whether the model has recovered the first photo.
      failure: why the thread ended early; None unless it did.
    """

    def __init__(
        self, recoverer: Recoverer, options: RecoverOptions, jobs: JobQueue, metrics: Metrics
    ) -> None:
        self.recoverer, self.options, self.jobs, self.metrics = recoverer, options, jobs, metrics
        self.ready, self.failure = threading.Event(), None
        self._pool = ThreadPoolExecutor(THREADS, "genhmr-photo")
        self._thread = threading.Thread(target=self._run, name="genhmr-model", daemon=True)

    def start(self, first: Photo) -> None:
        """Recover a first photo, so that all programs are compiled, and then the jobs."""
        self._first = first
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Close the queue, and wait until the jobs in it are done; whether they are."""
        self.jobs.close()
        self._thread.join(timeout)
        self._pool.shutdown(wait=False, cancel_futures=True)
        if not self.ended and self.ready.is_set():
            complain("stopped before the model was done with its photos")
            return False
        return True

    @property
    def ended(self) -> bool:
        """Whether the thread has ended, and with it all jobs."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._warm_up()
            self.ready.set()
            while jobs := self.jobs.take(TOGETHER):
                self._recover(jobs)
            self._pool.shutdown()
        except BaseException as error:  # the server reports that it is not well
            self.failure = error
            self.ready.clear()
            complain(f"the model failed ({type(error).__name__}: {error}); restart the server")
            self.jobs.close()
            while jobs := self.jobs.take(TOGETHER):
                for job in jobs:
                    _fail(job, error)

    def _warm_up(self) -> None:
        pixels = self._first.pixels
        prepared = self.recoverer.prepare(pixels, options=self.options)
        for count in (1, ROWS):  # the two sizes of programs
            people = self.recoverer.recover_prepared([prepared] * count, self.options)[0]
        if len(people):  # the page draws with compiled kernels
            answer(people, "html", "guess", panel(pixels), self.recoverer.body)

    def _recover(self, jobs: list[Job]) -> None:
        """Answer a group of jobs. Answers are made in the pool, beside the next group."""
        futures = [self._pool.submit(self._prepare, job) for job in jobs]
        group = [(job, outcome(future)) for job, future in zip(jobs, futures, strict=True)]
        group = [(job, Abandoned() if job.abandoned else ready) for job, ready in group]
        prepared = [ready for _, ready in group if not isinstance(ready, Exception)]
        if prepared:
            self.metrics.group(len(prepared), sum(len(ready.photo.people) for ready in prepared))
        for job, solved in solved_group(group, self._solve):
            if isinstance(solved, Exception):
                _fail(job, solved)
            else:
                self._pool.submit(self._finish, job, *solved)

    def _prepare(self, job: Job) -> Ready:
        """Detect the people of a photo.

        Raises:
          Abandoned: the job is.
          Refusal: nobody was found.
        """
        if job.abandoned:
            raise Abandoned
        (pixels, focal35), job.photo = job.photo, None
        options = dataclasses.replace(self.options, focal35=focal35, **job.camera)
        prepared = self.recoverer.prepare(pixels, options=options)
        if not len(prepared.people):
            remedy = "send a photo in which the person is larger"
            raise Refusal(422, PHOTO, "nobody was found", remedy)
        shown = panel(pixels) if job.format == "html" else None
        return Ready(prepared, options.focal_from, shown)

    def _solve(self, ready: list[Ready]) -> list[tuple[Ready, People]]:
        people = self.recoverer.recover_prepared([one.photo for one in ready], self.options)
        return list(zip(ready, people, strict=True))

    def _finish(self, job: Job, ready: Ready, people: People) -> None:
        try:
            if job.abandoned:
                raise Abandoned
            how = (job.format, ready.focal_from, ready.panel)
            made = answer(people, *how, self.recoverer.body)
            with contextlib.suppress(InvalidStateError):  # the client has gone away meanwhile
                job.answer.set_result(made)
        except Exception as error:
            _fail(job, error)


def _fail(job: Job, error: BaseException) -> None:
    """Give a job an error. A client sees those of its photo; others are reported here."""
    if isinstance(error, Abandoned):
        job.answer.cancel()
        return
    if isinstance(error, MemoryError):
        problem, remedy = "does not fit into memory", "scale the photo down"
        error = Refusal(503, PHOTO, problem, remedy, retry_after=10)
    elif not isinstance(error, InputError):
        complain(f"a photo failed: internal error ({type(error).__name__}: {error})")
    try:
        job.answer.set_exception(error)
    except InvalidStateError:
        pass  # the answer is there already, or cancelled
