"""Ends a run that hangs, with a message that names the process.

A process that waits for a file server, or for another process, waits forever, and JAX notices only
processes that die. Here a thread of each process watches how long the training loop has been in one
place. The processes of a run tell each other these places through the coordinator of JAX.
"""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax

from genhmr_jax.io.errors import InputError

_KEY = "genhmr_jax/watchdog"
_POLLS = 20  # within the limit: the processes tell their places as often
_SLOWEST_POLL_S = 30.0
_ANSWER_POLLS = 3  # a process that has told nothing for so long does not answer


class Watchdog:
    """Watches the training loop of this process.

    Args:
      limit_s: seconds that one place of the loop may take: a step with the loading of its batch,
        an evaluation, a save; the first step takes as long as its compilation. 0: no limit.
      end: called with the message, from another thread; by default it shows the message and the
        stacks of all threads, and ends the process with exit code 1.
    """

    def __init__(self, limit_s: float, end: Callable[[str], None] | None = None):
        self._limit, self._end = limit_s, end or _exit
        self._place, self._count, self._since = "the start", 0, time.monotonic()
        self._beats, self._closed = 0, threading.Event()
        self._poll = min(limit_s / _POLLS, _SLOWEST_POLL_S)
        if limit_s:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def at(self, place: str) -> None:
        """Tell that the loop has reached a place, such as "the batch of step 7"."""
        self._place, self._count, self._since = place, self._count + 1, time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._poll):
            self._tell()
            if time.monotonic() - self._since > self._limit:
                before = self._others()
                if self._closed.wait(_ANSWER_POLLS * self._poll):
                    return
                self._tell()
                message = describe(before, self._others(), self._limit)
                if time.monotonic() - self._since > self._limit:
                    self._end(message)
                    return

    def _tell(self) -> None:
        """Tell the other processes where this one is."""
        self._beats += 1
        found = {"place": self._place, "count": self._count, "beats": self._beats}
        self._own = {jax.process_index(): found}
        if jax.process_count() > 1:
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator has ended
                text = json.dumps(found)
                _client().key_value_set(f"{_KEY}/{jax.process_index()}", text, True)

    def _others(self) -> dict[int, dict[str, Any]]:
        """The places of all processes by their index; of one that told none, no entry."""
        found = dict(self._own)
        if jax.process_count() > 1:
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                for key, text in _client().key_value_dir_get(_KEY):
                    found[int(key.rpartition("/")[2])] = json.loads(text)
        return found


def describe(before: dict[int, dict], now: dict[int, dict], limit_s: float) -> str:
    """One line on a hanging run. Pure.

    The process at fault is one that does not answer, else the one that has come least far: the
    others wait for it.

    Args:
      before, now: {"place", "count", "beats"} of each process, at two times.
      limit_s: seconds that the run has hung.
    """
    silent = [i for i in sorted(now) if i in before and now[i]["beats"] == before[i]["beats"]]
    least = min(found["count"] for found in now.values())
    fault = silent or [i for i in sorted(now) if now[i]["count"] == least]
    names = ", ".join(f"process {i}" for i in fault)  # all of them if they are equally far
    where = "does not answer" if silent else f"hangs at {now[fault[0]]['place']}"
    waiting = [i for i in sorted(now) if i not in fault]
    others = "; ".join(f"process {i} is at {now[i]['place']}" for i in waiting)
    problem = f"{where} (nothing has finished for {limit_s:g} s{'; ' if others else ''}{others})"
    remedy = "run the same command to resume; if a step takes longer, raise --config.hang_after"
    return str(InputError(names, problem, remedy))


def _exit(message: str) -> NoReturn:
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    print(f"genhmr_jax.main: {message}", file=sys.stderr, flush=True)
    os._exit(1)


def _client() -> Any:
    # JAX has no public name for its key-value store; orbax reads it from here too.
    return jax._src.distributed.global_state.client


@contextlib.contextmanager
def watching(limit_s: float) -> Iterator[Watchdog]:
    """A watchdog for the time of a block."""
    dog = Watchdog(limit_s)
    try:
        yield dog
    finally:
        dog.close()
