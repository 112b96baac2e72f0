"""Builds the wheel, installs it with the oldest and the newest dependencies, and uses it offline.

python tools/reliability/supply_chain.py --out runs/supply --python python3.11 --python python3.12

1. The sdist of the working tree, the wheel of that sdist, and what is in the wheel.
2. For each Python, once with the oldest versions that setup.cfg allows and once with the newest: a
   new environment with the wheel, `pip check`, and `genhmr doctor`, `demo` and `hands` in an empty
   folder, away from the checkout. No socket can be opened, and where the system permits it, the
   processes have no network at all.
3. Licences (pip-licenses) and an SBOM (CycloneDX) of every environment.

The tools (build, uv, pip-licenses, cyclonedx-bom) are installed into an environment of their own.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from genhmr_jax.io.atomic import atomic_path

ROOT = pathlib.Path(__file__).resolve().parents[2]
HAND = ROOT / "tests" / "support" / "hand.png"  # the sample photo has no hand that is found
TOOLS = ("build", "uv", "pip-licenses", "cyclonedx-bom")
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
ASSETS = "genhmr_jax/assets/"
FOREIGN = ("tests/", "docs/", "tools/", "configs/", "benchmarks/", "launch/")
COPYLEFT = r"\b([AL]?GPL|SSPL|EUPL|MPL|EPL|CDDL|CC-BY-NC|CC-BY-SA|UNKNOWN)"
ACCEPTED = {"tqdm": "MPL"}
"""Copyleft of single files of a package that is used as it is, and not shipped with this one."""
COMMANDS = {
    "doctor": ("doctor",),
    "demo": ("demo", "--out", "demo"),
    "hands": ("hands", "hand.png", "--out", "hands"),
}

OFFLINE = '''"""No socket of this process reaches another machine."""
import socket

def _refused(*arguments, **options):
    raise OSError("the network is blocked in this test")

for _name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, _name, _refused)
socket.getaddrinfo = socket.create_connection = socket.gethostbyname = _refused
'''


@dataclasses.dataclass(frozen=True)
class Environment:
    """What was measured in one environment.

    Attributes:
      python: version. versions: oldest or newest.
      packages: name -> installed version.
      checked: whether `pip check` has no complaint.
      commands: name -> (exit code, seconds).
      joints: of the first person of the demo, metres, to 0.1 mm; None if it failed.
      network: "none" without any interface, or "blocked" in Python alone.
      licences: package -> licence.
      doubtful: packages whose licence is copyleft or unknown.
    """

    python: str
    versions: str
    packages: dict[str, str]
    checked: bool
    commands: dict[str, tuple[int, float]]
    joints: list[list[float]] | None
    network: str
    licences: dict[str, str]
    doubtful: dict[str, str]

    @property
    def sound(self) -> bool:
        """Whether everything worked, and every licence is known."""
        failed = [code for code, _ in self.commands.values() if code]
        return self.checked and not failed and not self.doubtful


def run(*command: Any, **options: Any) -> subprocess.CompletedProcess:
    """A command with its output as text.

    Raises:
      subprocess.CalledProcessError: it fails; its output was printed.
    """
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True, **options)
    if done.returncode and options.get("check") is not False:
        print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
        done.check_returncode()
    return done


def make_tools(folder: pathlib.Path) -> pathlib.Path:
    """The folder of the programs of TOOLS, in a new environment."""
    venv.create(folder, with_pip=True, clear=True)
    run(folder / "bin" / "pip", "install", "--quiet", *TOOLS)
    return folder / "bin"


def build(tools: pathlib.Path, out: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The sdist of the working tree, and the wheel that is built from it."""
    with tempfile.TemporaryDirectory() as folder:
        source, listed = pathlib.Path(folder) / "source", ["git", "ls-files", "-co"]
        files = run(*listed, "--exclude-standard", "-z", cwd=ROOT).stdout.split("\0")
        for name in filter(None, files):
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, source / name)
        run(tools / "python", "-m", "build", "--outdir", out, source)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def check_wheel(wheel: pathlib.Path) -> tuple[dict[str, Any], list[str]]:
    """Facts about a wheel, and what is wrong with it."""
    problems = []
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        digest = lambda name: hashlib.sha256(archive.read(name)).hexdigest()
        lines = archive.read(f"{ASSETS}SHA256SUMS").decode().splitlines()
        expected = {name: sum_ for sum_, name in (line.split("  ", 1) for line in lines)}
        present = {name.removeprefix(ASSETS) for name in names if name.startswith(ASSETS)}
        present.discard("SHA256SUMS")
        problems += [f"{name} is not in it" for name in sorted(expected.keys() - present)]
        problems += [f"{name} has no hash" for name in sorted(present - expected.keys())]
        for name in sorted(present & expected.keys()):
            if digest(ASSETS + name) != expected[name]:
                problems.append(f"{name} has another hash")
        for name in names:
            if name.startswith(FOREIGN) or "/__pycache__/" in name or name.endswith("_test.py"):
                problems.append(f"{name} does not belong in it")
        for wanted in ("LICENSE", "NOTICE", "entry_points.txt"):
            if not any(name.endswith(f"/{wanted}") and "dist-info" in name for name in names):
                problems.append(f"{wanted} is not in it")
        modules = sum(name.endswith(".py") for name in names)
        tops = sorted({name.split("/")[0] for name in names})
    size = round(wheel.stat().st_size / 1e6, 1)
    return {"MB": size, "files": len(names), "modules": modules, "tops": tops}, problems


def make_environment(
    tools: pathlib.Path, python: str, versions: str, wheel: pathlib.Path, folder: pathlib.Path
) -> pathlib.Path:
    """A new environment with the wheel; its interpreter.

    uv chooses the versions: the oldest ones of the packages that setup.cfg names, and the newest
    ones of what these need in turn.
    """
    uv, interpreter = tools / "uv", folder / "bin" / "python"
    run(python, "-m", "venv", folder)
    needed = folder / "requirements.txt"
    needed.write_text("\n".join(requirements(wheel)))
    install = (uv, "pip", "install", "--quiet", "--python", interpreter)
    run(*install, "--resolution", RESOLUTIONS[versions], "--requirements", needed)
    run(*install, "--no-deps", wheel)
    return interpreter


def requirements(wheel: pathlib.Path) -> list[str]:
    """What a wheel needs without its extras, from its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        file = next(name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        lines = archive.read(file).decode().splitlines()
    found = [line.split(": ", 1)[1] for line in lines if line.startswith("Requires-Dist: ")]
    return [line for line in found if "extra ==" not in line]


def isolated() -> list[str]:
    """A prefix that runs a command without network interfaces, if the system permits it."""
    prefix = ["unshare", "--map-root-user", "--net"]
    try:
        works = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    except OSError:
        works = False
    return prefix if works else []


def use(interpreter: pathlib.Path, folder: pathlib.Path) -> tuple[dict, list | None]:
    """Exit codes and seconds of COMMANDS in an empty folder, and joints of the demo."""
    folder.mkdir(parents=True)
    offline = folder / "offline"
    offline.mkdir()
    shutil.copy(HAND, folder)
    (offline / "sitecustomize.py").write_text(OFFLINE)
    settings = {
        "PATH": f"{interpreter.parent}:/usr/bin:/bin",
        "PYTHONPATH": str(offline),
        "GENHMR_CACHE": str(folder / "cache"),
        "HOME": str(folder),
        "JAX_PLATFORMS": "cpu",
    }
    found = {}
    for name, arguments in COMMANDS.items():
        start = time.monotonic()
        command = [*isolated(), str(interpreter.parent / "genhmr"), *arguments]
        with (folder / f"{name}.log").open("w") as log:
            done = subprocess.run(command, cwd=folder, env=settings, stdout=log, stderr=log)
        found[name] = done.returncode, round(time.monotonic() - start, 1)
    script = (
        "import numpy, json; f = numpy.load('demo/person.npz');"
        "print(json.dumps(f['joints'][0].astype(float).round(4).tolist()))"
    )
    done = run(interpreter, "-c", script, cwd=folder, env=settings, check=False)
    return found, json.loads(done.stdout) if done.returncode == 0 else None


def licences_of(tools: pathlib.Path, interpreter: pathlib.Path) -> dict[str, str]:
    """The licence of each installed package, except the package itself."""
    arguments = ("--python", interpreter, "--from=mixed", "--format=json")
    rows = json.loads(run(tools / "pip-licenses", *arguments).stdout)
    own = {"genhmr_jax", "genhmr-jax"}
    # Some packages give the whole text as its name.
    short = lambda text: text.strip().split("\n")[0]
    return {row["Name"]: short(row["License"]) for row in rows if row["Name"] not in own}


def doubtful(licences: dict[str, str]) -> dict[str, str]:
    """Those that are copyleft or unknown; of a choice one free licence is enough."""
    found = {}
    for name, text in licences.items():
        kinds = [set(re.findall(COPYLEFT, choice.upper())) for choice in text.split(" OR ")]
        if not text or all(kind - {ACCEPTED.get(name)} for kind in kinds):
            found[name] = text
    return found


def examine(
    tools: pathlib.Path, python: str, versions: str, wheel: pathlib.Path, out: pathlib.Path
) -> Environment:
    """Install and use the wheel in one environment, and write its SBOM."""
    name = f"{pathlib.Path(python).name}-{versions}"
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        interpreter = make_environment(tools, python, versions, wheel, place / "venv")
        listed = run(tools / "uv", "pip", "list", "--format=json", "--python", interpreter).stdout
        packages = {row["name"]: row["version"] for row in json.loads(listed)}
        check = run(interpreter, "-m", "pip", "check", check=False)
        (out / f"{name}-pip-check.txt").write_text(check.stdout + check.stderr)
        commands, answer = use(interpreter, place / "away")
        for log in (place / "away").glob("*.log"):
            shutil.copy(log, out / f"{name}-{log.name}")
        licences = licences_of(tools, interpreter)
        written = ("--output-format", "JSON", "-o", out / f"{name}.cdx.json")
        run(tools / "cyclonedx-py", "environment", interpreter, *written)
        version = run(interpreter, "--version").stdout.removeprefix("Python ")
    return Environment(
        version.strip(), versions, packages, check.returncode == 0, commands, answer,
        "none" if isolated() else "blocked", licences, doubtful(licences),
    )  # fmt: skip


def table(environments: Sequence[Environment]) -> str:
    """One line for each environment."""
    shown = ("jax", "flax", "numpy", "scipy", "numba", "pillow")
    head = ["Python", "versions", *shown, "pip check", *COMMANDS, "network", "doubtful licences"]
    rows = [head]
    for e in environments:
        state = [f"exit {code}, {seconds} s" for code, seconds in e.commands.values()]
        versions = [e.packages.get(name, "-") for name in shown]
        names = ", ".join(e.doubtful) or "none"
        check = "ok" if e.checked else "FAILS"
        rows.append([e.python, e.versions, *versions, check, *state, e.network, names])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--python", action="append", help="default: this one; may be repeated")
    parser.add_argument("--versions", choices=tuple(RESOLUTIONS), action="append")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    for old in (*args.out.glob("*.whl"), *args.out.glob("*.tar.gz")):
        old.unlink()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        tools = make_tools(pathlib.Path(folder) / "tools")
        sdist, wheel = build(tools, args.out)
        facts, problems = check_wheel(wheel)
        facts["sdist MB"] = round(sdist.stat().st_size / 1e6, 1)
        print(f"{wheel.name}: {facts}", *problems, sep="\n  ", flush=True)
        for python in args.python or [sys.executable]:
            for versions in args.versions or RESOLUTIONS:
                found.append(examine(tools, python, versions, wheel, args.out))
                print(table(found[-1:]), flush=True)
    joints = np.array([e.joints for e in found if e.joints is not None])
    spread = float(np.ptp(joints, 0).max()) if len(joints) else None
    report = {"wheel": facts, "problems": problems, "spread": spread}
    report["environments"] = [dataclasses.asdict(e) for e in found]
    with atomic_path(args.out / "supply_chain.json") as part:
        part.write_text(json.dumps(report, indent=1))
    print(table(found))
    if spread is not None:
        print(f"joints of the demo differ by up to {spread} m between {len(joints)} environments")
    return 0 if not problems and all(e.sound for e in found) else 1


if __name__ == "__main__":
    sys.exit(main())
