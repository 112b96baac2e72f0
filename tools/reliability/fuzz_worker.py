"""The process of one target: `python fuzz_worker.py MODULE TARGET CPU_SECONDS OUT`.

It runs inputs until its CPU time is used, and records findings. See fuzz.py.
"""

import collections
import contextlib
import gc
import importlib
import json
import os
import pathlib
import random
import re
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator

CORPUS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fuzz_corpus"
SPARE = 2 << 30
"""Bytes of address space beyond those that the imports need."""
STUCK = 60
"""CPU seconds in one input after which the process is ended: a loop outside of Python."""
OURS = ("genhmr_jax", "smpl_jax", "fuzz_targets")
SEEN = ("genhmr_jax.io", "genhmr_jax.data", "genhmr_jax.recover", "genhmr_jax.cli", "smpl_jax")
"""Modules whose coverage guides atheris."""


class Hang(BaseException):
    """An input takes too long. No `except Exception` catches it."""


def peak() -> int:
    """The highest resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Hang in the block after so many seconds of CPU time."""

    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def failure(target, data: bytes) -> tuple[str, str] | None:
    """Run one input: the kind of its failure with the place, and the traceback, or None.

    Args:
      target: a Target.
      data: the input.
    """
    before = peak()
    try:
        with limited(target.seconds):
            target.run(data)
    except Hang as error:
        return f"hang {_place(error)}", traceback.format_exc()
    except Exception as error:
        return f"{type(error).__name__} {_place(error)}", traceback.format_exc()
    if (grown := peak() - before) > target.memory:
        return "memory", f"the peak grew by {grown} MiB"
    return None


def _place(error: BaseException) -> str:
    """The innermost line of our own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if any(f"/{name}/" in f.filename for name in OURS)]
    if not frames:
        return "nowhere"
    last = (own or frames)[-1]
    return f"{pathlib.Path(last.filename).name}:{last.lineno}"


class Findings:
    """One input for each kind of failure, the shortest that was met."""

    def __init__(self, target, folder: pathlib.Path) -> None:
        self.target, self.folder = target, folder
        self.counts: collections.Counter = collections.Counter()
        self.sizes: dict[str, int] = {}
        for text in folder.glob("*.txt"):  # of an earlier process of this run
            kind = text.read_text().split("\n")[0]
            if text.with_suffix("").exists():
                self.sizes[kind] = text.with_suffix("").stat().st_size

    def add(self, kind: str, text: str, data: bytes) -> None:
        """Record a failure; the first one of a kind is minimised."""
        self.counts[kind] += 1
        if kind in self.sizes and len(data) >= self.sizes[kind]:
            return
        if kind not in self.sizes and kind != "memory":
            data = self._smaller(kind, data)
        self.sizes[kind] = len(data)
        name = re.sub(r"\W+", "_", kind)[:80]
        (self.folder / name).write_bytes(data)
        (self.folder / f"{name}.txt").write_text(f"{kind}\n{text}")

    def _smaller(self, kind: str, data: bytes) -> bytes:
        """The input without the parts that the failure does not need."""
        end, step = time.process_time() + 20, max(1, len(data) // 2)
        while step and time.process_time() < end:
            start = 0
            while start < len(data) and time.process_time() < end:
                shorter = data[:start] + data[start + step :]
                found = failure(self.target, shorter)
                if found and found[0] == kind:
                    data = shorter
                else:
                    start += step
            step //= 2
        return data


class Worker:
    """Runs inputs, counts them, and ends the process when its time is used."""

    def __init__(self, target, seconds: float, out: pathlib.Path, engine: str) -> None:
        self.target, self.seconds, self.folder = target, seconds, out / target.name
        self.state = out / f"{target.name}.json"
        self.findings = Findings(target, self.folder / "findings")
        found = json.loads(self.state.read_text()) if self.state.exists() else {}
        self.before, self.inputs = found.get("cpu_s", 0), found.get("inputs", 0)
        self.cov_start, self.engine = found.get("cov_start", 0), engine
        self.start, self.written = time.process_time(), time.monotonic()
        self.coverage: Callable[[], int] = lambda: 0

    def __call__(self, data: bytes) -> None:
        """Run one input."""
        (self.folder / "current").write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, STUCK)  # its signal ends the process
        found = failure(self.target, data)
        self.inputs += 1
        if found:
            self.findings.add(*found, data)
        if self.inputs % 500 == 0:
            gc.collect()
        if time.monotonic() - self.written > 5:
            self.write()
        if self.before + time.process_time() - self.start > self.seconds:
            self.write()
            (self.folder / "current").unlink()
            os._exit(0)

    def write(self) -> None:
        """Write the numbers so far."""
        self.written = time.monotonic()
        covered = self.coverage()
        self.cov_start = self.cov_start or covered
        numbers = {
            "engine": self.engine,
            "cpu_s": round(self.before + time.process_time() - self.start, 1),
            "inputs": self.inputs,
            "cov_start": self.cov_start,
            "cov_end": covered,
            "kept": sum(1 for _ in (self.folder / "corpus").iterdir()),
            "findings": len(self.findings.sizes),
            "hangs": sum(n for kind, n in self.findings.counts.items() if kind.startswith("hang")),
            "peak_mib": peak(),
            "counts": dict(self.findings.counts),
        }
        self.state.write_text(json.dumps(numbers, indent=1) + "\n")


def mutations(seeds: list[bytes], target, run: Callable[[bytes], None]) -> None:
    """Endless mutated inputs. An input whose outcome is new becomes a seed.

    The outcome is the chain of lines that raised the refusal; it costs no tracing.
    """
    rng, pool, seen = random.Random(0), list(seeds) or [b""], set()
    inner, refusals = target.run, sys.modules["fuzz_targets.target"].REFUSALS

    def outcome(data: bytes) -> None:
        refusals.clear()
        inner(data)
        lines: list[object] = []
        for error in refusals:
            while error is not None:
                lines.append((type(error).__name__, _place(error)))
                error = error.__cause__ or error.__context__
        if (key := tuple(lines)) not in seen:
            seen.add(key)
            pool.append(data)

    object.__setattr__(target, "run", outcome)
    for seed in seeds:
        run(seed)
    while True:
        run(mutated(bytearray(rng.choice(pool)), pool, target, rng)[: target.longest])


def mutated(data: bytearray, pool: list[bytes], target, rng: random.Random) -> bytes:
    """A changed copy: bytes, repeated or left-out parts, tokens, parts of another input."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at, kind = rng.randint(0, len(data)), rng.randrange(7)
        length = rng.choice((1, 2, 4, 8, 32, 256))
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 20))
        elif kind == 4 and target.tokens:
            data[at:at] = rng.choice(target.tokens)
        elif kind == 5:
            data[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"99999"))
        else:
            other = rng.choice(pool)
            start = rng.randint(0, len(other))
            data[at : at + length] = other[start : start + length]
    return bytes(data)


def main() -> None:
    """Load the target under instrumentation, and run it."""
    module, name, seconds, out = sys.argv[1:5]
    out = pathlib.Path(out)
    warnings.simplefilter("ignore")
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        import atheris
    except ImportError:
        atheris = None
    instrumented = contextlib.nullcontext()
    if atheris:
        instrumented = atheris.instrument_imports(include=list(SEEN), enable_loader_override=False)
    with instrumented:
        module = importlib.import_module(f"fuzz_targets.{module}")
    target = next(target for target in module.TARGETS if target.name == name)
    gc.freeze()
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE, resource.RLIM_INFINITY))
    worker = Worker(target, float(seconds), out, "atheris" if atheris else "mutations")
    seeds = CORPUS / name
    if not atheris:
        found = [path.read_bytes() for path in sorted(seeds.iterdir()) if path.suffix != ".txt"]
        mutations(found, target, worker)
    escaped = ["".join(f"\\x{byte:02X}" for byte in token) for token in target.tokens]
    dictionary = out / name / "tokens.dict"
    dictionary.write_text("".join(f'w="{token}"\n' for token in escaped))
    worker.coverage = lambda: _covered(out / f"{name}.log")
    flags = [f"-max_len={target.longest}", "-timeout=100000", "-rss_limit_mb=0", "-handle_segv=0"]
    flags += [f"-artifact_prefix={out / name}/", "-len_control=20"]
    if escaped:  # an empty dictionary is an error
        flags.append(f"-dict={dictionary}")
    flags.append("-report_slow_units=60")
    folders = [str(out / name / "corpus"), *([str(seeds)] if seeds.is_dir() else [])]
    atheris.Setup([sys.argv[0], *flags, *folders], worker)
    atheris.Fuzz()


def _covered(log: pathlib.Path) -> int:
    """The coverage that libFuzzer printed last."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        found = re.findall(rb" cov: (\d+)", file.read())
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    main()
