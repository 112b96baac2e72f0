"""The plan of a sweep: a graph of nodes, each named by a hash of all that determines its result.

Kinds, in their order: "images" (rendered by a tiny sweep), those of the two stages (trainings), and
"evaluate". Points share equal nodes, in this sweep and in any other one with the same --out. A node
that is done is never run again.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from genhmr_jax.evaluate.settings import Settings
from genhmr_jax.evaluate.sweep.definition import EVALUATE, Point, Sweep, merged
from genhmr_jax.evaluate.sweep.settings import config_file, load_sweep, read_set
from genhmr_jax.io.config_files import field_names, load_config, override_flags
from genhmr_jax.io.errors import InputError
from genhmr_jax.train import defaults

IMAGES = "images"
NOTHING: Mapping[str, str] = types.MappingProxyType({})
# Config fields that do not change the result of a training: a node is the same on another mesh.
HOW = tuple(name for name in defaults.runtime() if name not in defaults.IDENTITY)


@dataclasses.dataclass(frozen=True)
class Node:
    """One process to run.

    Attributes:
      kind: one of `Plan.kinds`.
      key: kind and hash; the name of its folder, log and job.
      command: arguments of python.
      marker: the file that exists when the node is done.
      needs: keys of the nodes whose results it needs.
      point: the first point that needs it.
    """

    kind: str
    key: str
    command: tuple[str, ...]
    marker: pathlib.Path
    needs: tuple[str, ...]
    point: str

    @property
    def done(self) -> bool:
        return self.marker.exists()


@dataclasses.dataclass(frozen=True)
class Row:
    """A point, and for each seed its evaluation's key and the model folder of its first stage.

    There are no such folders if a model of the second stage is given.
    """

    point: Point
    evaluations: tuple[str, ...]
    first_stages: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All nodes, each after those that it needs, and the rows of the table."""

    sweep: Sweep
    out: pathlib.Path
    nodes: dict[str, Node]
    rows: tuple[Row, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of nodes, in their order."""
        return (IMAGES, *self.sweep.kinds)


def make_plan(
    name: str,
    out: str | os.PathLike,
    *,
    sets: Sequence[str] = (),
    seeds: int = 1,
    first_stage: str = "",
    checkpoint: str = "",
    remote: str = "",
) -> Plan:
    """The plan of "configs/sweeps/FILE.py:arg". Nothing is written.

    Args:
      name: the file and its argument.
      out: the sweep's folder.
      sets: --set texts.
      seeds: number of repetitions of each training, with consecutive seeds from that of the config.
      first_stage: model folder of a trained first stage for all points, or "".
      checkpoint: model folder of the second stage to evaluate at all points, "default" for the
        packaged model, or "".
      remote: the path of `out` on the machines that run the nodes, if it is another one.

    Raises:
      InputError: an error of `settings.load_sweep` or `read_set`; a point does not fit the configs,
        or changes a model that is trained already.
    """
    sweep = load_sweep(name)
    if seeds < 1 or (checkpoint and seeds > 1):
        problem = "cannot be" if seeds < 1 else "trains nothing with --checkpoint"
        raise InputError(f"--seeds {seeds}", problem, "give --seeds 1")
    out = pathlib.Path(out)
    paths = (out, pathlib.Path(remote or out))
    planner = _Planner(sweep, name, *paths, read_set(sets, sweep, name), first_stage, checkpoint)
    rows = []
    for point in sweep.points:
        evaluations, folders = zip(
            *(planner.point(point, seed) for seed in range(seeds)), strict=True
        )
        rows.append(Row(point, evaluations, tuple(folder for folder in folders if folder)))
    return Plan(sweep, out, planner.nodes, tuple(rows))


class _Planner:
    """Makes the nodes of one point after another; equal nodes are made once."""

    def __init__(
        self,
        sweep: Sweep,
        name: str,
        out: pathlib.Path,
        remote: pathlib.Path,
        sets: dict[str, dict[str, Any]],
        first_stage: str,
        checkpoint: str,
    ):
        self.sweep, self.name, self.out, self.remote, self.sets = sweep, name, out, remote, sets
        self.first_stage, self.checkpoint = first_stage, checkpoint
        self.nodes: dict[str, Node] = {}
        self.asking = ""

    def point(self, point: Point, seed: int) -> tuple[str, pathlib.Path | None]:
        """Make the nodes of a point.

        Returns:
          the key of its evaluation, and the model folder of its first stage, or None if there is
          only the evaluation.
        """
        # 1. A point must not change a model that is trained already.
        self.asking, where = point.name, f"{self.name}, point {point.name}"
        first, second = self.sweep.stages
        trained = {first: self.first_stage or self.checkpoint, second: self.checkpoint}
        for kind, given in trained.items():
            if given and (changed := ", ".join(point.overrides.get(kind, {}))):
                problem = f"changes {changed} of the {kind}, but {given} is trained already"
                raise InputError(where, problem, "leave out --checkpoint and --first-stage")

        # 2. With a trained model of the second stage there is only the evaluation.
        if self.checkpoint:
            config, _, inputs = self._config(second, point, seed, where)
            model = "" if self.checkpoint == "default" else self.checkpoint
            return self._evaluation(point, config, model, inputs, where), None

        # 3. First stage, second stage, evaluation.
        model, folder, needs = self.first_stage, pathlib.Path(self.first_stage), ()
        if not self.first_stage:
            key = self._training(first, *self._config(first, point, seed, where))
            model, needs = str(self._run(key) / "model"), (key,)
            folder = self.out / "runs" / key / "model"
        config, overrides, inputs = self._config(second, point, seed, where, {first: model})
        key = self._training(second, config, overrides, (*inputs, *needs))
        model = str(self._run(key) / "model")
        return self._evaluation(point, config, model, (*inputs, key), where), folder

    def _images(self, kind: str, poses: str) -> tuple[dict[str, str], tuple[str, ...]]:
        """The override for the images of a stage, and the key of the node that renders them.

        Both are empty for a sweep that renders no images, and for a stage that is given others.
        """
        if not self.sweep.images or "data.images" in self.sets[kind]:
            return {}, ()
        images = dataclasses.asdict(self.sweep.images)
        key = _key(IMAGES, images, poses)
        command = ["-m", "genhmr_jax.evaluate.sweep.images", "--out", str(self._run(key))]
        for name, value in {"poses": poses, **images}.items():
            command += [f"--{name}", str(value)]
        self._add(IMAGES, key, command, "val/done.json")
        return {"data.images": str(self._run(key))}, (key,)

    def _config(
        self, kind: str, point: Point, seed: int, where: str, last: Mapping[str, str] = NOTHING
    ) -> tuple[ml_collections.ConfigDict, dict[str, Any], tuple[str, ...]]:
        """The config of a stage at a point.

        Args:
          kind: of the stage.
          point, seed: of the training.
          where: the place of the point, for errors.
          last: overrides that come after those of the point.

        Returns:
          the config, its overrides of the config file, and the keys of the nodes that make its
          images.
        """
        file = config_file(self.name, self.sweep.configs[kind])
        overrides = merged(self.sweep.overrides, self.sets, point.overrides)[kind] | last
        try:
            config = load_config(file, overrides)
        except InputError as error:
            raise InputError(f"{where}: {error.where}", error.problem, error.remedy) from error
        images, needs = {}, ()
        if "data.images" in field_names(config):
            images, needs = self._images(kind, config.data.poses)
            config.data.images = images.get("data.images", config.data.images)
        if seed:
            overrides["seed"] = config.seed = config.seed + seed
        return config, overrides | images, needs

    def _training(
        self,
        kind: str,
        config: ml_collections.ConfigDict,
        overrides: dict[str, Any],
        needs: tuple[str, ...],
    ) -> str:
        """Add a training, and return its key.

        The hash covers all fields of the config except HOW. Results of other nodes are covered by
        the hashes of these nodes, not by their paths.
        """
        folders = [str(self.remote)] if needs else []
        outside = lambda fields: {name: _outside(value, folders) for name, value in fields.items()}
        identity = json.loads(config.to_json_best_effort(), object_hook=outside)
        identity = {name: value for name, value in identity.items() if name not in HOW}
        if not identity["lora"]["rank"]:
            del identity["lora"]
        key = _key(kind, identity, needs)
        file = config_file(self.name, self.sweep.configs[kind])
        command = ["-m", "genhmr_jax.main", f"--config={file}", f"--workdir={self._run(key)}"]
        self._add(kind, key, command + override_flags(overrides), "model/config.json", needs)
        return key

    def _evaluation(
        self,
        point: Point,
        config: ml_collections.ConfigDict,
        model: str,
        needs: tuple[str, ...],
        where: str,
    ) -> str:
        """Add an evaluation, and return its key."""
        overrides = merged(self.sweep.overrides, self.sets, point.overrides)[EVALUATE]
        settings, body = Settings.of(overrides, where), config.data.body
        flag, file = "--poses", config.data.poses
        if config.image_batch_size:
            flag, file = "--images", config.data.images
        given = (model if self.checkpoint else "", _outside(file, [str(self.remote)]))
        key = _key(EVALUATE, dataclasses.asdict(settings), flag, given, body, needs)
        command = ["-m", "genhmr_jax.evaluate.views", flag, file, "--body", body]
        command += ["--out", f"{self._run(key)}.json", "--model", self.sweep.stages[1]]
        command += settings.flags()
        if model:
            command += ["--checkpoint", model]
        self._add(EVALUATE, key, command, ".json", needs)
        return key

    def _run(self, key: str) -> pathlib.Path:
        """The folder of a node on the machine that runs it."""
        return self.remote / "runs" / key

    def _add(
        self, kind: str, key: str, command: Sequence[str], result: str, needs: tuple[str, ...] = ()
    ) -> None:
        """Add a node, if it is new.

        `result` is its marker: a file in the node's folder, or ".json" for a file in place of the
        folder.
        """
        marker = self.out / "runs" / (key + result if result.startswith(".") else f"{key}/{result}")
        self.nodes.setdefault(key, Node(kind, key, tuple(command), marker, needs, self.asking))


def _key(kind: str, *parts: Any) -> str:
    """The kind, and a hash of the parts, which must be JSON values."""
    return f"{kind}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]}"


def _outside(value: Any, folders: list[str]) -> Any:
    """Any value, but "" for a path inside one of the folders: it is the result of another node."""
    is_inside = isinstance(value, str) and any(value.startswith(f + os.sep) for f in folders)
    return "" if is_inside else value
