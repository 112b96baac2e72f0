"""Faults inside a training process: when they strike, and what they do.

A fault is a dictionary. "when" is one of

* {"seconds": s}: after the start of the process;
* {"place": text, "seconds": s}: after the training loop has reached a place (train/watchdog.py)
  that begins with this text;
* {"file": n, "after": bool, "from_start": bool}: before or after the n-th change of a directory
  (rename, delete, make) since the start of the process or, by default, since the first step;
* {"load": n}: in a thread that loads the n-th batch from now.

"action" is a key of ACTIONS. The functions of the process are wrapped for this: neither the program
nor its environment has any switch for it.
"""

import ctypes
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from genhmr_jax.data import pipeline
from genhmr_jax.train.watchdog import Watchdog

MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
STORM = 20  # signals, in STORM_S seconds
STORM_S = 2.0
_delay = [0.0]  # seconds that each batch takes to load, once a SIGTERM has been sent


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2). Raises OSError."""
    encode = lambda text: None if text is None else text.encode()
    texts = [encode(text) for text in (source, target, kind)]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(*texts, ctypes.c_ulong(flags), encode(data)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def _kill(fault: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _terminate(fault: dict[str, Any]) -> None:
    """SIGTERM once or many times. The steps get slower: the processes need a second to agree."""
    _delay[0] = 0.5

    def send() -> None:
        for _ in range(fault["signals"]):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(STORM_S / STORM)

    threading.Thread(target=send, daemon=True).start()


def _fill(fault: dict[str, Any]) -> None:
    """Fill the disk except for some bytes."""
    disk = pathlib.Path(fault["disk"])
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with open(disk / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - fault["left"], 4096))


def _make_read_only(fault: dict[str, Any]) -> None:
    """Mount the work directory read-only over itself. Files that are open stay writable."""
    mount(fault["workdir"], fault["workdir"], None, MS_BIND)
    mount(fault["workdir"], fault["workdir"], None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def _hang(fault: dict[str, Any]) -> None:
    time.sleep(10_000)


def _stop(fault: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


ACTIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "kill": _kill,
    "terminate": _terminate,
    "fill": _fill,
    "read only": _make_read_only,
    "hang": _hang,
    "stop": _stop,
}


def inject(fault: dict[str, Any]) -> None:
    """Arm a fault in this process. "fired" of the fault is the file that tells that it struck."""
    struck = threading.Event()

    def strike() -> None:
        if struck.is_set():
            return
        struck.set()
        pathlib.Path(fault["fired"]).touch()
        ACTIONS[fault["action"]](fault)

    def soon(seconds: float) -> None:
        if seconds:
            timer = threading.Timer(seconds, strike)
            timer.daemon = True
            timer.start()
        else:
            strike()

    when = fault["when"]
    _wrap_loading(when.get("load"), strike)
    if "place" in when:
        _wrap_places(lambda place: place.startswith(when["place"]) and soon(when["seconds"]))
    elif "file" in when:
        _wrap_directories(when["file"], when["after"], strike, when.get("from_start", False))
    elif "load" not in when:
        soon(when["seconds"])


def _wrap_places(reached: Callable[[str], Any]) -> None:
    at = Watchdog.at

    def wrapped(self: Watchdog, place: str) -> None:
        at(self, place)
        reached(place)

    Watchdog.at = wrapped


def _wrap_directories(
    number: int, after: bool, strike: Callable[[], None], from_start: bool
) -> None:
    counted, started = [0], [from_start]
    _wrap_places(lambda place: started.__setitem__(0, started[0] or place.startswith("step ")))

    def wrap(change: Callable) -> Callable:
        def wrapped(*given: Any, **named: Any) -> Any:
            counted[0] += started[0]
            now = started[0] and counted[0] == number
            if now and not after:
                strike()
            result = change(*given, **named)
            if now and after:
                strike()
            return result

        return wrapped

    for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
        setattr(os, name, wrap(getattr(os, name)))


def _wrap_loading(number: int | None, strike: Callable[[], None]) -> None:
    load, counted = pipeline.Batches._load, [0]

    def wrapped(self: pipeline.Batches, step: int) -> Any:
        counted[0] += 1
        if counted[0] == number:
            strike()
        time.sleep(_delay[0])
        return load(self, step)

    pipeline.Batches._load = wrapped
