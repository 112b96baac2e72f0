"""Checkpoints of a run, written with orbax.

A checkpoint has three items: `state` (arrays), `data` (JSON: the position of the input, checksums
of the arrays) and `meta` (JSON: config, fingerprint). All are checked when they are restored. Any
mesh and any number of processes may restore them. WORKDIR is a local path or gs://.
"""

import hashlib
import json
import logging
import os
import time
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from genhmr_jax.io.errors import InputError, Preempted
from genhmr_jax.io.model_folder import absolute
from genhmr_jax.train import checksums, distributed
from genhmr_jax.train.defaults import IDENTITY
from genhmr_jax.train.mesh import path_name

log = logging.getLogger("genhmr_jax")


def fingerprint(config: ml_collections.ConfigDict, frozen: Any) -> dict[str, str]:
    """A hash of the frozen models, and of each part of the config that a resumed run must share.

    Only the last name of a data path counts: a run may resume with its data in another folder.
    """
    parts = {name: config[name] for name in IDENTITY if name in config}
    to_plain = lambda v: v.to_dict() if isinstance(v, ml_collections.ConfigDict) else v
    plain = {name: to_plain(value) for name, value in parts.items()}
    if not plain.get("lora", {}).get("rank"):
        plain.pop("lora", None)
    last_name = lambda v: os.path.basename(v.rstrip("/")) if isinstance(v, str) else v
    plain["data"] = {name: last_name(value) for name, value in plain["data"].items()}
    digest = lambda data: hashlib.sha256(data).hexdigest()[:16]
    as_json = lambda v: json.dumps(v, sort_keys=True, default=str).encode()
    hashes = {name: digest(as_json(value)) for name, value in plain.items()}
    models = {"tokenizer": ("tokenizer", "codebook"), "mesh2d": ("mesh2d",)}
    for name, parts in models.items():
        if name in frozen:
            arrays = jax.tree.leaves([frozen[part] for part in parts])
            hashes[name] = digest(b"".join(np.asarray(x).tobytes() for x in arrays))
    return hashes


class _Noted:
    """A part of a save in the background, whose error is noted when orbax waits for it."""

    def __init__(self, future: Any, failures: list[BaseException]):
        self._future, self._failures = future, failures

    def result(self, timeout: float | None = None) -> Any:
        try:
            return self._future.result(timeout)
        except BaseException as error:
            self._failures.append(error)
            raise


def _noting(handler: Any, failures: list[BaseException]) -> Any:
    """The handler of orbax, which notes the errors of its saves from now on.

    With several processes orbax itself reports them late: it waits for the others first, which wait
    for this process.
    """
    save = handler.async_save

    async def async_save(*given: Any, **named: Any) -> list[_Noted]:
        return [_Noted(future, failures) for future in await save(*given, **named) or ()]

    handler.async_save = async_save  # orbax finds the arguments of a handler by its exact type
    return handler


class Checkpoints:
    """The checkpoints of a run in `workdir`/checkpoints, of which the newest are kept."""

    def __init__(self, workdir: str | os.PathLike, config: ml_collections.ConfigDict, frozen: Any):
        self.directory = absolute(workdir) / "checkpoints"
        self.meta = checksums.sealed(
            {
                "fingerprint": fingerprint(config, frozen),
                "config": json.loads(config.to_json_best_effort()),
            }
        )
        self.every, self.damaged = config.checkpoint_every, []
        self._failures: list[BaseException] = []
        # In the background a folder that cannot be made is an error after five minutes, for which
        # the writers of the arrays wait for it.
        at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.keep, create=True, async_options=at_once
        )
        handlers = {
            "state": _noting(ocp.StandardCheckpointHandler(), self._failures),
            "data": _noting(ocp.JsonCheckpointHandler(), self._failures),
            "meta": _noting(ocp.JsonCheckpointHandler(), self._failures),
        }
        self.manager = ocp.CheckpointManager(
            self.directory, options=options, item_handlers=handlers
        )

    def due(self, step: int) -> bool:
        """Whether to save the state of `step`: at regular intervals, and before a preemption.

        Every process must call this for every step, so that all agree on the last one.

        Raises:
          Exception: a save in the background has failed, such as on a full disk.
        """
        self._check_failures()
        return step % self.every == 0 or self.manager.reached_preemption(step)

    def preempted(self, step: int) -> bool:
        """Whether the job was preempted (SIGTERM) and all processes agreed to stop here."""
        return self.manager.reached_preemption(step)

    def save(self, step: int, state: Any, data: dict) -> None:
        """Save in the background. A checkpoint of this step is kept, unless it is damaged.

        Damaged checkpoints are deleted: they must not count as the newest ones that are kept.
        """
        self.wait()
        while self.damaged:
            self.manager.delete(self.damaged.pop())
        if step in self.manager.all_steps():
            return
        data = checksums.sealed(data | {"checksums": checksums.of_state(state)})
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(data),
            meta=ocp.args.JsonSave(self.meta),
        )
        try:
            self.manager.save(step, args=args, force=True)
        except BaseException as error:
            self._failures.append(error)  # orbax counts the save as unfinished for ever
            raise

    def restore(self, state: Any) -> tuple[Any, dict] | None:
        """Restore (state, data) of the newest readable checkpoint; None if there is none.

        Args:
          state: arrays or ShapeDtypeStructs with the shardings of the restored arrays.

        Raises:
          InputError: the checkpoint is of another config or model, or no checkpoint can be read.
        """
        steps = distributed.of_main(sorted(self.manager.all_steps(), reverse=True))
        for step in steps:
            found, problem = None, ""
            try:
                found = self._read(step, state)
            except InputError:
                raise
            except Exception as error:  # orbax and tensorstore raise many types for damaged files
                problem = f"{type(error).__name__}: {_first_line(error)}"
            # The processes read different files. Another one may have failed.
            if failed := distributed.failures(problem):
                problem = "; ".join(failed)
            else:
                *found, expected = found
                problem = checksums.difference(found[0], expected)
            if not problem:
                return tuple(found)
            log.warning("checkpoint %s cannot be read (%s); trying the one before", step, problem)
            self.damaged.append(step)
        if steps:
            problem = f"none of the checkpoints {steps} can be read"
            raise InputError(self.directory, problem, "restore a copy, or give another --workdir")
        return None

    def _read(self, step: int, state: Any) -> tuple[Any, dict, dict[str, list[int]]]:
        """The state and the data of a checkpoint, and the checksums that the state should have.

        No process waits for another one here: the files of one of them may be damaged.
        """
        me = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
        )
        options = ocp.CheckpointManagerOptions(read_only=True, multiprocessing_options=alone)
        handlers = {
            "state": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
            "data": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
            "meta": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        }
        with ocp.CheckpointManager(
            self.directory, options=options, item_handlers=handlers
        ) as manager:
            read = lambda **items: manager.restore(step, args=ocp.args.Composite(**items))
            self._check_config(checksums.unsealed(read(meta=ocp.args.JsonRestore())["meta"]))
            self._check_arrays(manager.item_metadata(step)["state"], state)
            found = read(state=ocp.args.StandardRestore(state), data=ocp.args.JsonRestore())
        data = checksums.unsealed(found["data"])
        expected = data.pop("checksums")
        return found["state"], data, expected

    def _check_config(self, meta: dict[str, Any]) -> None:
        """Raise InputError, with the differing parts, if a checkpoint is of another config."""
        mine, theirs = self.meta["fingerprint"], meta["fingerprint"]
        changed = sorted(k for k in mine | theirs if theirs.get(k) != mine.get(k))
        if changed:
            problem = f"holds a run of another config (differs in {', '.join(changed)})"
            remedy = "give another --workdir or the old config"
            raise InputError(self.directory, problem, remedy)

    def _check_arrays(self, saved: Any, state: Any) -> None:
        """Raise InputError with the first array that does not fit. Orbax's error is unclear.

        A checkpoint of which no array is known is damaged: ValueError.
        """
        saved = getattr(saved, "tree", saved)
        leaves = jax.tree_util.tree_leaves_with_path
        shapes = lambda tree: {path_name(path): tuple(x.shape) for path, x in leaves(tree)}
        have, want = shapes(saved), shapes(state)
        if not have:  # orbax gives nothing where the file is missing
            raise ValueError("its list of arrays (state/_METADATA) cannot be read")
        for name in sorted(have | want):
            if have.get(name) != want.get(name):
                both = f"{have.get(name, 'missing')}, not {want.get(name, 'expected')}"
                problem = f"holds another model: {name} is {both}"
                raise InputError(self.directory, problem, "give another --workdir")

    def finish(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Wait for unfinished saves at the end of a run; an `__exit__`.

        Where one of several processes has failed, it does not wait: the others would have to take
        part in the save, and wait for it in the middle of a step.
        """
        together = error is None or isinstance(error, (Preempted, FloatingPointError))
        if together or jax.process_count() == 1:
            self.close()

    def wait(self) -> None:
        """Wait for unfinished saves. Raises the error of one that has failed."""
        while self.manager.is_saving_in_progress():
            self._check_failures()
            time.sleep(0.01)
        self.manager.wait_until_finished()

    def _check_failures(self) -> None:
        if self._failures:
            raise self._failures[0]

    def close(self) -> None:
        """Wait for unfinished saves, and release the files."""
        self.wait()
        self.manager.close()


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else ""
