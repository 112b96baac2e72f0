"""What a run writes: metrics.jsonl, the terminal, TensorBoard, W&B."""

import io
import json
import logging
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from genhmr_jax.io.errors import InputError
from genhmr_jax.train import writers
from genhmr_jax.train.writers import Writers


def lines(workdir) -> list[str]:
    return (workdir / "metrics.jsonl").read_text().splitlines()


def strict(line: str) -> dict:
    """JSON as other languages read it: without NaN."""
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_one_json_object_a_line(tmp_path):
    writer = Writers(tmp_path / "new" / "run", 100)
    value = np.float32(0.1) + np.float32(1e-8)
    writer.write(10, {"loss": jnp.asarray(value), "count": 3, "share": np.float64(0.25)})
    writer.write(20, {"loss": jnp.nan, "worst": -jnp.inf, "fine": 1e-30})
    writer.close()
    first, second = map(strict, lines(tmp_path / "new" / "run"))
    assert first == {"step": 10, "loss": pytest.approx(0.1), "count": 3, "share": 0.25}
    assert np.float32(first["loss"]) == value  # exactly
    assert second == {"step": 20, "loss": None, "worst": None, "fine": 1e-30}


def test_lines_are_there_before_the_run_ends(tmp_path):
    writer = Writers(tmp_path, 100)
    writer.write(1, {"loss": 2.0})
    assert strict(lines(tmp_path)[0]) == {
        "step": 1,
        "loss": 2.0,
    }  # a kill -9 now would lose nothing
    writer.close()


def test_resumed_run(tmp_path):
    writer = Writers(tmp_path, 100)
    for step in (10, 20, 30):
        writer.write(step, {"loss": float(step)})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "lo')  # killed while writing
    writer = Writers(tmp_path, 100)
    writer.resumed(20)
    writer.write(30, {"loss": -30.0})
    writer.close()
    assert [strict(line) for line in lines(tmp_path)[4:]] == [
        {"event": "resumed", "step": 20},
        {"step": 30, "loss": -30.0},
    ]
    assert writers.read(tmp_path) == [
        {"step": 10, "loss": 10.0},
        {"step": 20, "loss": 20.0},
        {"step": 30, "loss": -30.0},
    ]


def test_other_processes_write_nothing(tmp_path):
    writer = Writers(tmp_path / "run", 100, tensorboard=True, wandb="project", enabled=False)
    writer.resumed(5)
    writer.write(10, {"loss": object()})  # not even looked at
    writer.progress(10)
    writer.close()
    assert not (tmp_path / "run").exists()


def test_without_a_terminal_the_log_tells_the_time_left(tmp_path, caplog, capfd, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(writers.time, "monotonic", lambda: clock[0])
    writer = Writers(tmp_path, 120)
    writer.resumed(20)
    clock[0] += 50.0
    with caplog.at_level(logging.INFO, "genhmr_jax"):
        writer.progress(45)
        writer.write(45, {"loss": 0.123456})
        writer.write(120, {"val_mpjpe_mm": 70.0})
    writer.close()
    assert caplog.messages == [
        "step 45/120 (0:02:30 left)  loss 0.1235",
        "step 120/120  val_mpjpe_mm 70",
    ]  # 2 s a step, 75 to go
    assert "step/s" not in capfd.readouterr().err  # no bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    writer = Writers(tmp_path, 100)
    writer.resumed(40)
    writer.progress(50)
    writer.write(50, {"loss": 0.5, "grad_norm": 7.0})
    writer.write(50, {"val_mpjpe_mm": 70.0})  # leaves the loss on the bar
    writer.close()
    bar = sys.stderr.getvalue().split("\r")[-1]
    assert "50/100" in bar and "loss=0.5" in bar and "grad_norm" not in bar


@pytest.mark.parametrize(
    "options, package, flag",
    [({"tensorboard": True}, "tensorboardX", "tensorboard"), ({"wandb": "p"}, "wandb", "wandb")],
)
def test_package_that_is_not_there(tmp_path, monkeypatch, options, package, flag):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError,
        match=(
            f"--config.log.{flag}: needs {package}, which is not installed; pip install {package}"
        ),
    ):
        Writers(tmp_path, 100, **options)


def test_tensorboard_hides_what_a_resumed_run_does_anew(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    writer = Writers(tmp_path, 100, tensorboard=True)
    writer.resumed(20)
    writer.write(30, {"loss": 0.5})
    writer.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, events = file.read_bytes(), []
    while data:  # TFRecord: length (8 bytes), its checksum (4), the record, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    assert any(
        e.session_log.status == 1 and e.step == 21 for e in events
    )  # START: later steps of other files do not count
    assert [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value] == [
        (30, "loss", 0.5)
    ]


def test_wandb_run_belongs_to_the_workdir(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    monkeypatch.setitem(
        sys.modules,
        "wandb",
        types.SimpleNamespace(init=lambda **options: calls.append(options) or Run()),
    )
    for workdir in ("a/run", "a/run", "b/run"):
        Writers(tmp_path / workdir, 100, wandb="project").close()
    first, again, other = (c for c in calls if isinstance(c, dict))
    assert (
        first == again
        and first["id"] != other["id"]
        and first["resume"] == "allow"
        and first["project"] == "project"
    )
    writer = Writers(tmp_path, 100, wandb="project")
    writer.write(10, {"loss": 0.5})
    writer.close()
    assert calls[-2:] == [(10, {"loss": 0.5}), "finished"]


def test_a_bucket_gets_the_whole_file_anew(tmp_path, monkeypatch):
    """Buckets know no appending: a stand-in that only reads and writes whole files."""
    files = {"gs://bucket/run/metrics.jsonl": '{"step": 1, "loss": 4.0}\n'}

    class Bucket:
        def __init__(self, path):
            self.path = str(path)

        def __truediv__(self, name):
            return Bucket(f"{self.path}/{name}")

        def __fspath__(self):
            return self.path

        def mkdir(self, parents, exist_ok):
            pass

        def exists(self):
            return self.path in files

        def read_text(self):
            return files[self.path]

        def write_text(self, text):
            files[self.path] = text

    monkeypatch.setattr(writers.epath, "Path", Bucket)
    monkeypatch.chdir(tmp_path)
    clock = [0.0]
    monkeypatch.setattr(writers.time, "monotonic", lambda: clock[0])
    writer = Writers("gs://bucket/run", 100)
    writer.resumed(1)
    writer.write(2, {"loss": 3.0})
    assert len(writers.read("gs://bucket/run")) == 1  # not at every line
    clock[0] = 61.0
    writer.write(3, {"loss": 2.0})
    assert len(writers.read("gs://bucket/run")) == 3
    writer.write(4, {"loss": 1.0})
    writer.close()
    assert [row["loss"] for row in writers.read("gs://bucket/run")] == [4.0, 3.0, 2.0, 1.0]
    assert not list(tmp_path.iterdir())  # nothing by the name "gs:" here
