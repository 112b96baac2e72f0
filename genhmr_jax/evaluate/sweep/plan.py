"""What a sweep has to compute: a graph of nodes, each named by a hash of all that decides its
result.

Kinds, in order: `images` (that a tiny sweep renders for itself), `tokenizer`, `genhmr` (trainings),
`evaluate`. Two points whose nodes are equal share them, in this sweep and in any other with the
same --out; a node that is done is never done again.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from genhmr_jax.evaluate.settings import Settings
from genhmr_jax.evaluate.sweep.definition import Point, Sweep
from genhmr_jax.evaluate.sweep.settings import config_file, load_sweep, read_set
from genhmr_jax.io.config_files import load_config, override_flags
from genhmr_jax.io.errors import InputError
from genhmr_jax.train import defaults

KINDS = ("images", "tokenizer", "genhmr", "evaluate")
# Fields that say how a training runs, not what comes out of it: a node is the same on another mesh.
HOW = tuple(name for name in defaults.runtime() if name not in ("precision", "drop_path"))


@dataclasses.dataclass(frozen=True)
class Node:
    """One process to run.

    Attributes:
      key: kind and hash; the name of its folder, log and job.
      command: arguments of python.
      marker: the file that is there when it is done.
      needs: keys of the nodes before it.
      point: the first point that asked for it.
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
    """A point and the nodes that it reads, for each seed: evaluations, and the tokenizers' model
    folders."""

    point: Point
    evaluations: tuple[str, ...]
    tokenizers: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All nodes, those that are needed before those that need them, and the rows of the table."""

    sweep: Sweep
    out: pathlib.Path
    nodes: dict[str, Node]
    rows: tuple[Row, ...]


def make_plan(
    name: str,
    out: str | os.PathLike,
    *,
    sets: Sequence[str] = (),
    seeds: int = 1,
    tokenizer: str = "",
    checkpoint: str = "",
    remote: str = "",
) -> Plan:
    """The plan of "configs/sweeps/FILE.py:arg".

    Args:
      out: the sweep's folder; nothing is written there yet.
      sets: --set texts.
      seeds: how many times each training is to be repeated, with seeds that count up from the
        config's.
      tokenizer: model folder of a trained tokenizer for all points, or "".
      checkpoint: model folder of stage 2 to evaluate at all points ("default": the packaged one),
        or "".
      remote: where the machines that run the nodes see `out`, when that is another path.

    Raises:
      InputError: what `settings.load_sweep` and `read_set` say; a point that does not fit the
        configs; a point that changes what is given.
    """
    sweep = load_sweep(name)
    if seeds < 1 or (checkpoint and seeds > 1):
        problem = "cannot be" if seeds < 1 else "trains nothing with --checkpoint"
        raise InputError(f"--seeds {seeds}", problem, "give --seeds 1")
    out = pathlib.Path(out)
    planner = _Planner(
        sweep,
        name,
        out,
        pathlib.Path(remote or out),
        read_set(sets, sweep, name),
        tokenizer,
        checkpoint,
    )
    rows = [
        Row(point, *zip(*(planner.point(point, seed) for seed in range(seeds)), strict=True))
        for point in sweep.points
    ]
    return Plan(sweep, out, planner.nodes, tuple(rows))


class _Planner:
    """Makes the nodes of points one after the other; equal ones once."""

    def __init__(
        self,
        sweep: Sweep,
        name: str,
        out: pathlib.Path,
        remote: pathlib.Path,
        sets: dict[str, dict[str, Any]],
        tokenizer: str,
        checkpoint: str,
    ):
        self.sweep, self.name, self.out, self.remote, self.sets = sweep, name, out, remote, sets
        self.tokenizer, self.checkpoint = tokenizer, checkpoint
        self.nodes: dict[str, Node] = {}
        self.asking = ""

    def point(self, point: Point, seed: int) -> tuple[str, pathlib.Path]:
        """The nodes of a point: the key of its evaluation, and its tokenizer's model folder."""
        self.asking, where = point.name, f"{self.name}, point {point.name}"
        for kind, given in (
            ("tokenizer", self.tokenizer or self.checkpoint),
            ("genhmr", self.checkpoint),
        ):
            if given and getattr(point, kind):
                problem = f"changes {', '.join(getattr(point, kind))} of the {kind}, but {given} is trained already"
                raise InputError(where, problem, "leave out --checkpoint and --tokenizer")
        images, inputs = self._images(where)
        if self.checkpoint:
            config = self._config("genhmr", point, seed, images, where)[0]
            model = "" if self.checkpoint == "default" else self.checkpoint
            return self._evaluation(point, config, model, inputs, where), pathlib.Path(
                self.checkpoint
            )
        if self.tokenizer:
            model, needs, tokenizer = self.tokenizer, inputs, pathlib.Path(self.tokenizer)
        else:
            key = self._training(
                "tokenizer", *self._config("tokenizer", point, seed, {}, where), ()
            )
            model, needs, tokenizer = (
                str(self._run(key) / "model"),
                (*inputs, key),
                self.out / "runs" / key / "model",
            )
        config, flags = self._config("genhmr", point, seed, images | {"tokenizer": model}, where)
        key = self._training("genhmr", config, flags, needs)
        return self._evaluation(
            point, config, str(self._run(key) / "model"), (*inputs, key), where
        ), tokenizer

    def _images(self, where: str) -> tuple[dict[str, str], tuple[str, ...]]:
        """The override that names the sweep's own images, and the node that renders them; both
        empty when there are others, or none."""
        if not self.sweep.images or "data.images" in self.sets["genhmr"]:
            return {}, ()
        poses = load_config(
            config_file(self.name, self.sweep.genhmr_config),
            {**self.sweep.genhmr, **self.sets["genhmr"]},
        ).data.poses
        images = dataclasses.asdict(self.sweep.images)
        key = _key("images", images, poses)
        how = [text for name, value in images.items() for text in (f"--{name}", str(value))]
        command = (
            "-m",
            "genhmr_jax.evaluate.sweep.images",
            "--out",
            str(self._run(key)),
            "--poses",
            poses,
            *how,
        )
        self._add("images", key, command, "val/done.json")
        return {"data.images": str(self._run(key))}, (key,)

    def _config(
        self, kind: str, point: Point, seed: int, last: dict[str, str], where: str
    ) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
        """A stage's config at a point, and the overrides that make it of the config file."""
        file = config_file(self.name, getattr(self.sweep, f"{kind}_config"))
        try:
            overrides = {
                **getattr(self.sweep, kind),
                **self.sets[kind],
                **getattr(point, kind),
                **last,
            }
            config = load_config(file, overrides)
        except InputError as error:
            raise InputError(f"{where}: {error.where}", error.problem, error.remedy) from error
        if seed:
            overrides["seed"] = config.seed = config.seed + seed
        return config, overrides

    def _training(
        self,
        kind: str,
        config: ml_collections.ConfigDict,
        overrides: dict[str, Any],
        needs: tuple[str, ...],
    ) -> str:
        """Paths that other nodes write count by those nodes' hashes, all other fields as they
        are."""
        identity = {
            name: value
            for name, value in json.loads(config.to_json_best_effort()).items()
            if name not in HOW
        }
        made = [str(self.remote)] if needs else []
        identity = json.loads(
            json.dumps(identity), object_hook=lambda d: {k: _outside(v, made) for k, v in d.items()}
        )
        key = _key(kind, identity, needs)
        file = config_file(self.name, getattr(self.sweep, f"{kind}_config"))
        command = (
            "-m",
            "genhmr_jax.main",
            f"--config={file}",
            f"--workdir={self._run(key)}",
            *override_flags(overrides),
        )
        self._add(kind, key, command, "model/config.json", needs)
        return key

    def _evaluation(
        self,
        point: Point,
        config: ml_collections.ConfigDict,
        model: str,
        needs: tuple[str, ...],
        where: str,
    ) -> str:
        settings = Settings.of(
            {**self.sweep.evaluate, **self.sets["evaluate"], **point.evaluate}, where
        )
        source = (
            ("--images", config.data.images)
            if config.image_batch_size
            else ("--poses", config.data.poses)
        )
        given = (model if self.checkpoint else "", _outside(source[1], [str(self.remote)]))
        key = _key(
            "evaluate", dataclasses.asdict(settings), source[0], given, config.data.body, needs
        )
        command = [
            "-m",
            "genhmr_jax.evaluate.views",
            *source,
            "--body",
            config.data.body,
            "--out",
            f"{self._run(key)}.json",
            *settings.flags(),
        ]
        self._add(
            "evaluate", key, (*command, *(("--checkpoint", model) if model else ())), ".json", needs
        )
        return key

    def _run(self, key: str) -> pathlib.Path:
        """A node's folder, as the machine sees it that runs the node."""
        return self.remote / "runs" / key

    def _add(
        self, kind: str, key: str, command: Sequence[str], result: str, needs: tuple[str, ...] = ()
    ) -> None:
        """`result`: the file in the node's folder that shows that it is done; or ".json", a file in
        place of a folder."""
        marker = self.out / "runs" / (key + result if result.startswith(".") else f"{key}/{result}")
        self.nodes.setdefault(key, Node(kind, key, tuple(command), marker, needs, self.asking))


def _key(kind: str, *parts: Any) -> str:
    """The kind and a hash of parts that can be written as JSON."""
    return f"{kind}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]}"


def _outside(value: Any, folders: list[str]) -> Any:
    """A path into the sweep's own folder as nothing: the node that writes it is in the hash
    already."""
    return (
        ""
        if isinstance(value, str) and any(value.startswith(folder + os.sep) for folder in folders)
        else value
    )
