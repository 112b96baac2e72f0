"""The npz files that this package writes, read with one kind of error.

Releases of datasets are read by data/sources/reading.py, results by recover/results.py, models by
model_folder.py.
"""

import os
from collections.abc import Sequence

import numpy as np
from smpl_jax.safe_npz import load_npz
from smpl_jax.safe_pickle import UnsafePickle

from genhmr_jax.io.errors import InputError, shortened


def read_own_npz(
    path: str | os.PathLike,
    what: str,
    remedy: str,
    keys: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Read the arrays of a file, each of which has a CRC-32 in the archive.

    Args:
      path: the file.
      what: what it should be, for the message, such as "pose corpus".
      remedy: what to do about a file that is missing, damaged or another one.
      keys: the arrays that it must have; None: all that it has are read.
      optional: further arrays, read where the file has them.

    Raises:
      InputError: no such file, no permission, damaged, or an array is missing.
    """
    wanted = None if keys is None else (*keys, *optional)
    try:
        arrays = load_npz(path, wanted)
    except FileNotFoundError as error:
        raise InputError(path, f"no such {what}", remedy) from error
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", remedy) from error
    except (ValueError, UnsafePickle) as error:
        problem = f"cannot be read as a {what} ({shortened(error, 200)})"
        raise InputError(path, problem, remedy) from error
    if missing := sorted(set(keys or ()) - set(arrays)):
        raise InputError(path, f"keys missing: {', '.join(missing)}", remedy)
    return arrays
