"""The corpus of the fuzzer (tools/reliability/fuzz.py), replayed: seeds and former findings."""

import re
import sys

import pytest

from genhmr_jax.cli import main
from support.paths import ROOT

CORPUS = ROOT / "tests" / "fuzz_corpus"
MOST_KIB = 300
sys.path.append(str(ROOT / "tools" / "reliability"))

from fuzz_targets import all_targets  # noqa: E402
from fuzz_targets.target import REFUSALS  # noqa: E402
from fuzz_worker import failure  # noqa: E402

TARGETS = {name: target for name, (_, target) in all_targets().items()}


def inputs(name: str) -> list:
    return sorted((CORPUS / name).iterdir())


def test_every_target_has_a_corpus_and_the_corpus_is_small():
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(any(path.name.startswith("seed") for path in inputs(name)) for name in TARGETS)
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) <= MOST_KIB << 10


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_of_the_corpus_fails(name):
    for path in inputs(name):
        found = failure(TARGETS[name], path.read_bytes())
        assert found is None, f"{path.name}: {found[0]}\n{found[1]}"


# These give one file to several readers, of which some must refuse it.
SEVERAL = {"annotations", "cli", "config", "results", "result_array"}


@pytest.mark.parametrize("name", sorted(set(TARGETS) - SEVERAL))
def test_the_first_seed_is_read(name):
    """Otherwise mutations would start from files that are refused at once."""
    REFUSALS.clear()
    assert failure(TARGETS[name], (CORPUS / name / "seed_0").read_bytes()) is None
    assert REFUSALS == []


def test_every_line_of_the_threat_model_names_a_test_that_exists():
    text = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`([\w/]+_test\.py)::(test_\w+)`", text)
    assert len(named) > 40
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all("_test.py::" in row for row in rows if row != "| attack | what stops it | test |")


def test_the_server_listens_on_this_machine_only():
    assert main.build_parser().parse_args(["serve"]).host == "127.0.0.1"
