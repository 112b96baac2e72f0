"""The bodies and joint regressors of the protocols.

The bodies are the user's SMPL files, or the free body of each gender.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float
from smpl_jax import SmplModel, lbs
from smpl_jax.rotations import axis_angle_to_matrix
from smpl_jax.safe_pickle import load_smpl_pickle

from genhmr_jax.data.sources.reading import read_npz, read_pickle
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError

GENDERS = ("neutral", "male", "female")


@dataclasses.dataclass(frozen=True)
class RegressorFile:
    """A file with a matrix (joints, vertices) that maps posed vertices to joints.

    Attributes:
      file: its name.
      joints: the number of joints.
      source: where to get it.
    """

    file: str
    joints: int
    source: str


REGRESSORS = {
    "J19": RegressorFile("SMPL_to_J19.pkl", 19, "the data of 4D-Humans (hmr2_data.tar.gz)"),
    "H36M": RegressorFile("J_regressor_h36m.npy", 17, "the data of SPIN (fetch_data.sh)"),
    # The matrix J_regressor in the body file:
    "J24": RegressorFile("SMPL_NEUTRAL.pkl", 24, "https://smpl.is.tue.mpg.de"),
}


class Posed(NamedTuple):
    """Posed bodies.

    Attributes:
      vertices: (B, V, 3) metres.
      joints: (B, 24, 3) metres.
      rotations: (B, 24, 3, 3) of the joints, relative to the camera.
    """

    vertices: Float[Array, "B V 3"]
    joints: Float[Array, "B 24 3"]
    rotations: Float[Array, "B 24 3 3"]


@dataclasses.dataclass(frozen=True)
class Bodies:
    """Bodies by gender, regressors by name, and a text about their origin."""

    models: Mapping[str, SmplModel]
    regressors: Mapping[str, Float[Array, "K V"]]
    origin: str

    def pose(
        self,
        pose: Float[np.ndarray, "B 72"],
        betas: Float[np.ndarray, "B 10"],
        genders: Iterable[str],
    ) -> Posed:
        """Pose the body of each row's gender, without translation: protocols align their points.

        Args:
          pose: axis-angle, radians; the root in camera coordinates.
          betas: of the body of that gender.
          genders: B values of GENDERS.
        """
        genders = list(genders)
        pose, betas = jnp.asarray(pose, jnp.float32), jnp.asarray(betas, jnp.float32)
        result: Posed | None = None
        for gender in sorted(set(genders)):
            found = _pose(self.models[gender], pose, betas)
            if result is None:
                result = found
            rows = np.array([g == gender for g in genders])
            result = jax.tree.map(lambda old, new, r=rows: _choose(r, new, old), result, found)
        return result


@jax.jit
def _pose(model: SmplModel, pose: Array, betas: Array) -> Posed:
    rotmats = axis_angle_to_matrix(pose.reshape(-1, 24, 3))
    output = smpl_jax.forward(model, betas, rotmats)
    rotations, _ = lbs.pose_skeleton(model.parents, jnp.zeros((24, 3)), rotmats)
    return Posed(output.vertices, output.joints, rotations)


def _choose(rows: np.ndarray, yes: Array, no: Array) -> Array:
    return jnp.where(rows.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


def load_bodies(
    body_dir: str | Path | None, regressors: Iterable[str] = (), genders: Iterable[str] = GENDERS
) -> Bodies:
    """Load the bodies of a folder, SMPL_{NEUTRAL,MALE,FEMALE}.pkl or .npz, and its regressors.

    Args:
      body_dir: the folder, or None for the free bodies, which have no published regressors.
      regressors: keys of REGRESSORS.
      genders: values of GENDERS.

    Raises:
      InputError: files are missing (the message names all of them), or a file has wrong content.
    """
    # 1. Without a folder, take the free bodies.
    regressors, genders = list(dict.fromkeys(regressors)), list(genders)
    if body_dir is None:
        if regressors:
            wanted = ", ".join(sorted({REGRESSORS[name].file for name in regressors}))
            remedy = f"this protocol needs your SMPL files and {wanted}: name their folder"
            raise InputError("--body-dir", "is not given", remedy)
        return Bodies({gender: load_body(gender) for gender in genders}, {}, "free body")

    # 2. Report all missing files.
    folder = Path(body_dir)
    paths = {gender: _body_file(folder, gender) for gender in genders}
    missing = [
        f"SMPL_{gender.upper()}.pkl (https://smpl.is.tue.mpg.de)"
        for gender, path in paths.items()
        if path is None
    ]
    for name in regressors:
        spec = REGRESSORS[name]
        if name != "J24" and not (folder / spec.file).is_file():
            missing.append(f"{spec.file} ({spec.source})")
    if missing:
        remedy = "put them there; bodies may also be .npz files"
        raise InputError(folder, f"lacks {', '.join(missing)}", remedy)

    # 3. Load.
    models = {gender: load_body(path) for gender, path in paths.items()}
    sizes = {model.num_vertices for model in models.values()}
    if len(sizes) > 1:
        problem = f"its bodies have {sorted(sizes)} vertices"
        raise InputError(folder, problem, "give the same body model for all genders")
    vertices = sizes.pop()
    matrices = {name: jnp.asarray(_regressor(folder, name, vertices)) for name in regressors}
    return Bodies(models, matrices, f"SMPL of {folder.name}")


def _body_file(folder: Path, gender: str) -> Path | None:
    paths = (folder / f"SMPL_{gender.upper()}.{suffix}" for suffix in ("pkl", "npz"))
    return next((path for path in paths if path.is_file()), None)


def _regressor(folder: Path, name: str, vertices: int) -> np.ndarray:
    """Load the matrix (K, V) of a regressor, float32."""
    spec = REGRESSORS[name]
    path = (name == "J24" and _body_file(folder, "neutral")) or folder / spec.file
    try:
        if path.suffix == ".npy":
            matrix = np.load(path, allow_pickle=False)
        elif path.suffix == ".npz":
            matrix = read_npz(path, ["J_regressor"])["J_regressor"]
        elif name == "J24":
            matrix = load_smpl_pickle(path.read_bytes(), ["J_regressor"])["J_regressor"]
        else:
            matrix = read_pickle(path)
        matrix = np.asarray(matrix, np.float32)
    except InputError:
        raise
    except Exception as error:  # NumPy parses the header as Python: nearly any type
        problem = f"holds no joint regressor ({error})"
        raise InputError(path, problem, f"get it again from {spec.source}") from error
    wanted = (spec.joints, vertices)
    if matrix.shape != wanted or not np.isfinite(matrix).all():
        problem = f"is a matrix of shape {matrix.shape}, not of {wanted} finite numbers"
        remedy = f"get it again from {spec.source}, and give the bodies that it belongs to"
        raise InputError(path, problem, remedy)
    return matrix
