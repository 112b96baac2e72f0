"""Checkpoints of a run: orbax, three items: `state` (arrays), `data` (where the input is) and
`meta` (JSON: config, fingerprint).

Any mesh and any number of processes may restore what another one saved. WORKDIR is a local path or
gs://.
"""

import hashlib
import json
import logging
import os
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import absolute
from genhmr_jax.train.mesh import path_name

log = logging.getLogger("genhmr_jax")

# What decides the loss curve. All else (mesh, processes, micro-batches, logging) may differ between
# a run and its resumption.
IDENTITY = (
    "stage", "seed", "batch_size", "image_batch_size", "model", "data", "masking", "loss", "optim", "steps", "precision", "drop_path",
    "lora",
)  # fmt: skip
# Fields that came later, with the value under which they do nothing: a run from before they were
# there goes on.
LATER: dict[str, dict[str, Any]] = {
    "model": {"box_token": False, "keypoints3d": False},
    "data": {"turn": {}},
    "masking": {"unroll": 0.0},
    "optim": {"encoder_layers": -1},
}


def fingerprint(config: ml_collections.ConfigDict, frozen: Any) -> dict[str, str]:
    """A hash for each part of the config that a resumed run must share with the first one, and of
    the tokenizer that it builds upon.

    Folders do not count, only the names of files: a run may go on where its data lie elsewhere.
    """
    parts = {name: config[name] for name in IDENTITY if name in config}
    plain = {
        k: v.to_dict() if isinstance(v, ml_collections.ConfigDict) else v for k, v in parts.items()
    }
    for name, fields in LATER.items():
        if name in plain:
            plain[name] = {
                k: v for k, v in plain[name].items() if k not in fields or v != fields[k]
            }
    if not plain.get("lora", {}).get("rank"):
        plain.pop("lora", None)
    plain["data"] = {
        k: os.path.basename(v.rstrip("/")) if isinstance(v, str) else v
        for k, v in plain["data"].items()
    }
    digest = lambda data: hashlib.sha256(data).hexdigest()[:16]
    hashes = {
        k: digest(json.dumps(v, sort_keys=True, default=str).encode()) for k, v in plain.items()
    }
    if "tokenizer" in frozen:
        arrays = jax.tree.leaves((frozen["tokenizer"], frozen["codebook"]))
        hashes["tokenizer"] = digest(b"".join(np.asarray(x).tobytes() for x in arrays))
    return hashes


class Checkpoints:
    """Saves and restores a training state in `workdir`/checkpoints, in the background; keeps the
    newest `keep`."""

    def __init__(self, workdir: str | os.PathLike, config: ml_collections.ConfigDict, frozen: Any):
        self.directory = absolute(workdir) / "checkpoints"
        self.meta = {
            "fingerprint": fingerprint(config, frozen),
            "config": json.loads(config.to_json_best_effort()),
        }
        self.every, self.damaged = config.checkpoint_every, []
        options = ocp.CheckpointManagerOptions(max_to_keep=config.keep, create=True)
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "data": ocp.JsonCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        }
        self.manager = ocp.CheckpointManager(
            self.directory, options=options, item_handlers=handlers
        )

    def due(self, step: int) -> bool:
        """Whether a state of `step` is to be saved: every so many steps, and when the machine is
        about to be taken away.

        Every process must ask for every step: they agree on when to stop.
        """
        return step % self.every == 0 or self.manager.reached_preemption(step)

    def preempted(self, step: int) -> bool:
        """Whether the process was told to stop (SIGTERM), and all processes agreed on this step."""
        return self.manager.reached_preemption(step)

    def save(self, step: int, state: Any, data: dict) -> None:
        """Saves in the background; a step that is there already is left, unless it is damaged."""
        if step in self.damaged:
            self.manager.delete(step)
            self.damaged.remove(step)
        if step in self.manager.all_steps():
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(data),
            meta=ocp.args.JsonSave(self.meta),
        )
        self.manager.save(step, args=args, force=True)

    def restore(self, state: Any) -> tuple[Any, dict] | None:
        """(state, data) of the newest checkpoint that can be read; None when there is none at all.

        Args:
          state: arrays or ShapeDtypeStructs with the shardings that the restored arrays shall have.

        Raises:
          InputError: the checkpoint is of another config or model, or no checkpoint can be read.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        for step in steps:
            try:
                meta = self.manager.restore(
                    step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
                )["meta"]
                self._check_config(meta)
                self._check_arrays(step, state)
                found = self.manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(state), data=ocp.args.JsonRestore()
                    ),
                )
            except InputError:
                raise
            except Exception as error:  # orbax and tensorstore raise many kinds for damaged files
                log.warning(
                    "checkpoint %s cannot be read (%s: %s); trying the one before",
                    step,
                    type(error).__name__,
                    _first_line(error),
                )
                self.damaged.append(step)
                continue
            return found["state"], found["data"]
        if steps:
            raise InputError(
                self.directory,
                f"none of the checkpoints {steps} can be read",
                "restore a copy, or give another --workdir",
            )
        return None

    def _check_config(self, meta: dict) -> None:
        mine = self.meta["fingerprint"]
        if changed := sorted(
            k for k in mine | meta["fingerprint"] if meta["fingerprint"].get(k) != mine.get(k)
        ):
            remedy = "give another --workdir or the old config"
            raise InputError(
                self.directory,
                f"holds a run of another config (differs in {', '.join(changed)})",
                remedy,
            )

    def _check_arrays(self, step: int, state: Any) -> None:
        """The first array that does not fit, by name: clearer than what the restore itself would
        say."""
        saved = self.manager.item_metadata(step)["state"]
        saved = getattr(saved, "tree", saved)
        shapes = lambda tree: {
            path_name(p): tuple(x.shape) for p, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        have, want = shapes(saved), shapes(state)
        for name in sorted(have | want):
            if have.get(name) != want.get(name):
                problem = f"holds another model: {name} is {have.get(name, 'missing')}, not {want.get(name, 'expected')}"
                raise InputError(self.directory, problem, "give another --workdir")

    def close(self) -> None:
        """Waits for saves under way."""
        self.manager.wait_until_finished()
        self.manager.close()


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else ""
