"""Sweeps on this machine: the order of runs, what is skipped, resumed and reported as failed."""

import pytest

from genhmr_jax.evaluate.sweep import local
from genhmr_jax.evaluate.sweep.plan import make_plan
from genhmr_jax.io.errors import InputError
from support.paths import ROOT
from support.sweep_runs import TOKENS, UGS, finish


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


class Fake:
    """A process that ends at its second poll, with a code, leaving a result if that is 0."""

    def __init__(self, node, code, log):
        self.node, self.code, self.polls, self.log = node, code, 0, log
        log.append(("start", node.key))

    def poll(self):
        self.polls += 1
        if self.polls < 2:
            return None
        if self.code == 0 and self.polls == 2:
            finish(self.node)
        self.log.append(("end", self.node.key))
        return self.code

    def terminate(self):
        self.log.append(("terminate", self.node.key))
        self.code = local.STOPPED

    def kill(self):
        self.log.append(("kill", self.node.key))


def run_fake(plan, jobs=2, codes=None):
    log, said = [], []
    outcome = local.run(
        plan,
        lambda node, slot: Fake(node, (codes or {}).get(node.kind, 0), log),
        jobs,
        said.append,
        pause=0,
    )
    return outcome, log, said


def test_nodes_run_after_what_they_need_and_never_twice(tmp_path):
    plan = make_plan(TOKENS, tmp_path)
    outcome, log, _ = run_fake(plan)
    assert (outcome.done, outcome.before, outcome.failed) == (6, 0, {})
    for node in plan.nodes.values():
        for need in node.needs:
            assert log.index(("end", need)) < log.index(("start", node.key))
    running = [
        sum(1 if what == "start" else -1 for what, _ in log[: i + 1]) for i in range(len(log))
    ]
    assert max(running) == 2, "two at a time"
    outcome, log, _ = run_fake(make_plan(TOKENS, tmp_path))
    assert (outcome.done, outcome.before, log) == (0, 6, [])


def test_a_failure_stops_only_what_needs_it_and_is_tried_again(tmp_path):
    plan = make_plan(TOKENS, tmp_path)
    broken = next(node for node in plan.nodes.values() if node.kind == "genhmr")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / f"{broken.key}.log").write_text("step 1\nValueError: the reason\n\n")
    log = []
    outcome = local.run(
        plan, lambda node, slot: Fake(node, int(node is broken), log), 1, lambda _: None, pause=0
    )
    evaluation = next(key for key, node in plan.nodes.items() if broken.key in node.needs)
    assert set(outcome.failed) == {broken.key, evaluation} and outcome.done == 4
    assert outcome.failed[broken.key].startswith("exit code 1, ValueError: the reason (")
    assert outcome.failed[evaluation] == f"not run: it needs {broken.key}"
    outcome, log, _ = run_fake(plan)
    assert [key for what, key in log if what == "start"] == [
        broken.key,
        evaluation,
    ] and not outcome.failed


def test_a_run_that_leaves_nothing_or_was_stopped_is_no_success(tmp_path):
    plan = make_plan(UGS, tmp_path)
    outcome, _, _ = run_fake(plan, codes={"tokenizer": local.STOPPED})
    assert "saved: the same command resumes it" in outcome.failed[next(iter(plan.nodes))]

    class Empty(Fake):
        def poll(self):
            return 0

    outcome = local.run(plan, lambda node, slot: Empty(node, 0, []), 1, lambda _: None, pause=0)
    assert "ended well but left no result" in outcome.failed[next(iter(plan.nodes))]


def test_when_interrupted_the_runs_are_told_to_save(tmp_path):
    plan, log = make_plan(UGS, tmp_path), []

    class Interrupting(Fake):
        def poll(self):
            if self.code == 0:
                raise KeyboardInterrupt
            return self.code

    with pytest.raises(KeyboardInterrupt):
        local.run(plan, lambda node, slot: Interrupting(node, 0, log), 1, lambda _: None, pause=0)
    assert [what for what, _ in log] == ["start", "terminate"], "it ended by itself: no kill"


def test_devices_are_dealt_out_and_logs_appended(tmp_path):
    plan = make_plan(UGS, tmp_path)
    node = next(iter(plan.nodes.values()))
    show = type(node)(
        node.kind,
        node.key,
        ("-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"),
        node.marker,
        (),
        "",
    )
    launch = local.launcher(plan, ["0", "1", "2", "3"], 2)
    for slot in (0, 1):
        assert launch(show, slot).wait() == 0
    assert (tmp_path / "logs" / f"{node.key}.log").read_text() == "0,2\n1,3\n"


def test_one_command_a_folder(tmp_path):
    with (
        local.alone(tmp_path),
        pytest.raises(InputError, match="another genhmr sweep is running there"),
        local.alone(tmp_path),
    ):
        pass
