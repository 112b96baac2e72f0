"""What is installed and whether it works, for `genhmr doctor`. No heavy import.

The packages themselves are imported in other processes (probes.py), so that a broken one is a line
of the report and not the end of it.
"""

import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import genhmr_jax
from genhmr_jax.io import probes
from genhmr_jax.io.cache_folder import cache_directory
from genhmr_jax.io.terminal import printable

ASSETS = Path(__file__).parents[1] / "assets"
SUMS = "SHA256SUMS"
"""The list of shipped files in ASSETS, in the form of sha256sum; tools/hash_assets.py writes it."""
REQUIRED = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax-checkpoint": "orbax.checkpoint",
    "flatbuffers": "flatbuffers",
    "grain": "grain",
    "ml_collections": "ml_collections",
    "ml_dtypes": "ml_dtypes",
    "etils": "etils.epath",
    "pyyaml": "yaml",
    "numpy": "numpy",
    "numba": "numba",
    "pillow": "PIL.Image",
    "trimesh": "trimesh",
    "scipy": "scipy",
    "jaxtyping": "jaxtyping",
    "absl-py": "absl",
    "tqdm": "tqdm",
}
"""Packages without which nothing works, and a module of each."""
_FIRST = ("numpy", "jaxlib", "jax")
EXTRAS = {
    "video": ({"av": "av"}, "clips: video files in and out"),
    "server": (
        {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus-client": "prometheus_client"},
        "photos over HTTP (genhmr serve)",
    ),
    "data": (
        {"tensorflow-datasets": "tensorflow_datasets", "array_record": "array_record"},
        "datasets built from official releases (genhmr data build)",
    ),
    "plots": (
        {"matplotlib": "matplotlib"},
        "plots of sweeps and of joint angles (genhmr sweep, angles)",
    ),
    "log": ({"tensorboardX": "tensorboardX", "wandb": "wandb"}, "logs of trainings"),
    "aot": ({"libtpu": "libtpu"}, "programs for an absent TPU (genhmr aot)"),
}
"""Extras of the package for users: their packages and modules, and what they enable."""
# Folders of the cache, and what is in them.
_CACHES = {"xla": "compiled programs", "traced": "traced programs", "numba": "kernels"}


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that is wrong: where, what, and what the user can do."""

    where: str
    problem: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Extra:
    """An extra of the package.

    Attributes:
      packages: version of each package; None: it is missing.
      broken: what the import of a package raised, by package.
      enables: what needs it.
    """

    packages: dict[str, str | None]
    broken: dict[str, str]
    enables: str


@dataclasses.dataclass(frozen=True)
class Cache:
    """A folder of the cache: its path, its content in bytes, and whether it can be written to."""

    path: str
    content: str
    size: int
    writable: bool


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
      versions: of Python, of this package and of those that it needs; None: missing.
      system: operating system and processor.
      backend, devices: JAX's default backend, and its devices; None and none if JAX fails.
      caches: the folders of the cache that exist, the cache itself first.
      assets: numbers of shipped files ("files") and of their bytes ("size").
      extras: by name.
      problems: all that is wrong.
    """

    versions: dict[str, str | None]
    system: str
    backend: str | None
    devices: tuple[str, ...]
    caches: tuple[Cache, ...]
    assets: dict[str, int]
    extras: dict[str, Extra]
    problems: tuple[Problem, ...]

    def text(self) -> str:
        """The report for a terminal."""
        versions = [f"{name} {version or 'missing'}" for name, version in self.versions.items()]
        lines = [f"{', '.join(versions[:2])}, {self.system}"]
        lines.append(f"packages: {', '.join(versions[2:])}")
        lines.append(f"devices: {', '.join(self.devices) or 'none'} (default: {self.backend})")
        for cache in self.caches:
            access = "can be written" if cache.writable else "cannot be written"
            lines.append(f"{cache.content}: {cache.path}, {_megabytes(cache.size)}, {access}")
        size = _megabytes(self.assets["size"])
        lines.append(f"shipped files: {self.assets['files']}, {size}")
        lines.append("extras:")
        for name, extra in self.extras.items():
            missing = [package for package, version in extra.packages.items() if version is None]
            state = f"missing {', '.join(missing)}" if missing else "installed"
            state = f"broken {', '.join(extra.broken)}" if extra.broken else state
            how = f'; pip install "genhmr_jax[{name}]"' if missing else ""
            lines.append(f"  {name}: {state}; {extra.enables}{how}")
        if self.problems:
            count = len(self.problems)
            lines.append(f"{count} {'problem' if count == 1 else 'problems'}:")
        else:
            lines.append("all is well")
        lines += [f"  {one.where}: {one.problem}; {one.remedy}" for one in self.problems]
        return "\n".join(printable(line) for line in lines)


def diagnose() -> Diagnosis:
    """Check the installation, in a few seconds. Nothing is changed."""
    modules = [name for packages, _ in EXTRAS.values() for name in packages.values()]
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(probes.import_errors, [*REQUIRED.values(), "smpl_jax"]),
            pool.submit(probes.import_errors, modules),
            pool.submit(probes.devices),
        ]
        versions, problems = _versions()
        caches, of_caches = _caches()
        assets, of_assets = check_assets()
        needed, optional, devices = (job.result() for job in jobs)
    problems += _imports(needed, versions)
    extras, of_extras = _extras(optional)
    if "error" in devices and needed["jax"] is None and needed["jaxlib"] is None:
        problem = f"finds no device that works ({_line(devices['error'])})"
        remedy = "check the driver and other programs on the device, or set JAX_PLATFORMS=cpu"
        problems.append(Problem("jax", problem, remedy))
    return Diagnosis(
        versions=versions,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        backend=devices.get("backend"),
        devices=tuple(devices.get("devices", ())),
        caches=tuple(caches),
        assets=assets,
        extras=extras,
        problems=(*problems, *of_caches, *of_assets, *of_extras),
    )


def check_assets(folder: Path = ASSETS) -> tuple[dict[str, int], list[Problem]]:
    """Compare the shipped files with their list.

    Returns:
      numbers of files and of bytes, and what is wrong.
    """
    remedy = "install the package again (pip install --force-reinstall --no-deps genhmr_jax)"
    try:
        listed = read_sums(folder / SUMS)
    except (OSError, ValueError) as error:
        problem = f"the list of shipped files cannot be read ({error})"
        return {"files": 0, "size": 0}, [Problem(str(folder / SUMS), problem, remedy)]
    size, problems = 0, []
    for name, wanted in listed.items():
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            problems.append(Problem(str(folder / name), f"cannot be read ({error})", remedy))
            continue
        size += len(content)
        if hashlib.sha256(content).hexdigest() != wanted:
            problems.append(Problem(str(folder / name), "differs from the shipped file", remedy))
    return {"files": len(listed), "size": size}, problems


def read_sums(path: Path) -> dict[str, str]:
    """File name -> SHA-256 of a list in the form of sha256sum.

    Raises:
      OSError, ValueError: it cannot be read, or is no such list.
    """
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if match is None:
            raise ValueError(f"{line[:80]!r} is no hash and name")
        found[match[2]] = match[1]
    return found


def _versions() -> tuple[dict[str, str | None], list[Problem]]:
    """The versions of what is needed, and those that are missing or too old."""
    versions: dict[str, str | None] = {
        "genhmr_jax": genhmr_jax.__version__,
        "Python": platform.python_version(),
    }
    problems = []
    least = _least_versions()
    for package in REQUIRED:
        versions[package] = _version(package)
        if versions[package] is None:
            problem, remedy = "is not installed", f"pip install {package}"
            problems.append(Problem(package, problem, remedy))
        elif _numbers(versions[package]) < _numbers(least.get(package, "0")):
            problem = f"has the version {versions[package]}, {least[package]} is needed"
            problems.append(Problem(package, problem, f"pip install --upgrade {package}"))
    return versions, problems


def _imports(errors: dict[str, str | None], versions: dict[str, str | None]) -> list[Problem]:
    """The required packages that are installed and cannot be imported.

    Most packages import those of _FIRST. If one of these fails, the others are not its fault.
    """
    problems = []
    packages = {module: package for package, module in REQUIRED.items()}
    broken = {module: error for module, error in errors.items() if error is not None}
    if first := next((module for module in _FIRST if module in broken), None):
        broken = {first: broken[first]}
    for module, error in broken.items():
        package = packages.get(module, "genhmr_jax")
        if versions[package] is not None:
            problem = f"{module} cannot be imported ({_line(error)})"
            problems.append(Problem(package, problem, _again(package)))
    return problems


def _extras(errors: dict[str, str | None]) -> tuple[dict[str, Extra], list[Problem]]:
    """The extras; a package is a problem only if it is there and cannot be imported."""
    extras, problems = {}, []
    for name, (packages, enables) in EXTRAS.items():
        versions = {package: _version(package) for package in packages}
        broken = {
            package: _line(error)
            for package, module in packages.items()
            if versions[package] is not None and (error := errors[module]) is not None
        }
        for package, error in broken.items():
            problem = f"cannot be imported ({error})"
            remedy = f"{_again(package)}, or uninstall it; it is for {enables}"
            problems.append(Problem(package, problem, remedy))
        extras[name] = Extra(versions, broken, enables)
    return extras, problems


def _caches() -> tuple[list[Cache], list[Problem]]:
    """The folders of the cache, and those that cannot be written to."""
    folder = cache_directory()
    remedy = "every call compiles its programs again; set GENHMR_CACHE to a folder of yours"
    if folder is None:
        return [], [Problem("cache", "there is no home directory for it", remedy)]
    parts = {folder: "cache"} | {folder / name: what for name, what in _CACHES.items()}
    caches = [
        Cache(str(path), what, _size(path), _writable(path))
        for path, what in parts.items()
        if path == folder or path.exists()
    ]
    wrong = [cache for cache in caches if not cache.writable]
    return caches, [Problem(cache.path, "cannot be written to", remedy) for cache in wrong]


def _writable(path: Path) -> bool:
    """Whether files can be written in a folder, or in the one in which it would be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(4096))  # empty files can be made on a full disk too
        return True
    except OSError:
        return False


def _size(folder: Path) -> int:
    """Bytes of all files in a folder; those that disappear meanwhile do not count."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return total


def _version(package: str) -> str | None:
    """The version of an installed package; "unknown" if its metadata is damaged."""
    try:
        return importlib.metadata.version(package) or "unknown"
    except importlib.metadata.PackageNotFoundError:
        return None
    except Exception:  # metadata of a broken installation can raise nearly anything
        return "unknown"


def _least_versions() -> dict[str, str]:
    """The least versions in the metadata of this package; none if it runs from its sources."""
    try:
        lines: Sequence[str] = importlib.metadata.requires("genhmr_jax") or ()
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = (re.fullmatch(r"([\w.-]+)\s*>=\s*([\d.]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def _numbers(version: str | None) -> tuple[int, ...]:
    """The numbers at the start of a version: 2.10.0rc1 is (2, 10, 0). An unknown one is high."""
    if version == "unknown":
        return (10**9,)
    parts = re.match(r"\d+(\.\d+)*", str(version))
    return tuple(map(int, parts[0].split("."))) if parts else ()


def _again(package: str) -> str:
    return f"pip install --force-reinstall {package}"


def _line(error: str) -> str:
    """An error in one short line."""
    text = " ".join(error.split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
