"""Checkpoints: orbax, two items: `state` (arrays) and `meta` (JSON: config, fingerprint). Also the small shipped form."""

import pathlib
from typing import Any

import jax
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
