"""Checkpoints: orbax, two items: `state` (arrays) and `meta` (JSON: config, fingerprint). Also the small shipped form."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from genhmr_jax.errors import InputError


class Checkpoints:
    """Saves and restores a training state in `workdir`/checkpoints; keeps the newest `keep`."""

    def __init__(self, workdir: str | pathlib.Path, *, every: int, keep: int = 2):
        self.directory = pathlib.Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, save_interval_steps=every, create=True)
        self.manager = ocp.CheckpointManager(self.directory, options=options)

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self.manager.latest_step()

    def save(self, step: int, state: Any, meta: dict, *, force: bool = False) -> bool:
        """Saves in the background when `step` is due (or `force`)."""
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        return self.manager.save(step, args=args, force=force)

    def restore(self, state: Any, meta: dict) -> Any:
        """The newest checkpoint in the shape of `state`.

        Raises:
          InputError: the checkpoint was written with another `meta["fingerprint"]`, or its arrays have other shapes.
        """
        step = self.latest()
        found = self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        if found["fingerprint"] != meta["fingerprint"]:
            changed = [k for k in meta["fingerprint"] if found["fingerprint"].get(k) != meta["fingerprint"][k]]
            raise InputError(
                self.directory,
                f"holds a run of another config (differs in {', '.join(changed)})",
                "give another --workdir or the old config",
            )
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        try:
            return self.manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))["state"]
        except (ValueError, KeyError) as error:
            raise InputError(self.directory, f"does not fit the model ({error})".splitlines()[0], "give another --workdir") from error

    def close(self) -> None:
        """Waits for saves under way."""
        self.manager.wait_until_finished()
        self.manager.close()


def save_params(directory: str | pathlib.Path, params: Any, meta: dict) -> None:
    """Writes a model for use: orbax arrays, in the types they have, in DIR/params; and DIR/config.json (specs, measured quality)."""
    directory = pathlib.Path(directory).absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / "params", jax.device_get(params), force=True)
    # Orbax writes the absolute path into its mark of success; a model that is passed on need not tell where it was made.
    (directory / "params" / "commit_success.txt").write_text("Checkpoint commit was successful\n")
    (directory / "config.json").write_text(json.dumps(meta, indent=1, sort_keys=True) + "\n")


def load_meta(directory: str | pathlib.Path) -> dict:
    """DIR/config.json of a model. Raises InputError when DIR is no model."""
    directory = pathlib.Path(directory)
    file = directory / "config.json"
    if not file.is_file():
        raise InputError(
            directory, "is not a genhmr_jax model (no config.json)", "give the folder that `genhmr_jax.main` exported with --config.export"
        )
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise InputError(file, f"is not JSON ({error})", "export the model again") from error


def load_params(directory: str | pathlib.Path, like: Any) -> Any:
    """The arrays of a model directory as float32, in the shape of `like` (arrays or ShapeDtypeStructs).

    Raises:
      InputError: the arrays are missing, damaged, or do not fit `like`; the first misfit is named.
    """
    directory = pathlib.Path(directory).absolute()
    remedy = "config.json and params must come from the same export"
    stored = _read(directory)
    wanted, have = _by_name(like), _by_name(stored)
    for name in wanted | have:
        if name not in have or name not in wanted:
            raise InputError(directory, f"does not fit its config: {name} is {'missing' if name not in have else 'unknown'}", remedy)
        if have[name].shape != wanted[name].shape:
            raise InputError(directory, f"does not fit its config: {name} is {have[name].shape}, not {wanted[name].shape}", remedy)
    leaves = [jnp.asarray(have[name], w.dtype) for name, w in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def warm_start(directory: str | pathlib.Path, params: Any) -> tuple[Any, dict[str, list[str]]]:
    """Takes over every array of a stage-2 model folder that fits `params`, and says which did not.

    Returns:
      the new params, and names under "loaded", "missing" (not in the folder: left as they are), "misfit" (of another shape) and "unused".
    """
    wanted, have = _by_name(params), _by_name(_read(pathlib.Path(directory).absolute())["genhmr"])
    report = {
        "loaded": [n for n in wanted if n in have and have[n].shape == wanted[n].shape],
        "missing": [n for n in wanted if n not in have],
        "misfit": [n for n in wanted if n in have and have[n].shape != wanted[n].shape],
        "unused": [n for n in have if n not in wanted],
    }
    taken = set(report["loaded"])
    leaves = [jnp.asarray(have[n], v.dtype) if n in taken else v for n, v in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(params), leaves), report


def _by_name(tree: Any) -> dict[str, Any]:
    """Leaves by their path, in the tree's order."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _read(directory: pathlib.Path) -> Any:
    """The arrays of a model folder as they were saved."""
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(directory / "params")
    except Exception as error:  # orbax raises many kinds for a damaged folder
        raise InputError(
            directory / "params", f"cannot be read ({type(error).__name__})", "export the model again, or copy it whole"
        ) from error
