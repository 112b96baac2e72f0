"""Writes genhmr_jax/assets/SHA256SUMS: the hashes of all shipped files, for `genhmr doctor`.

    python tools/hash_assets.py

Run it after every change of a file in assets/; tests/io/diagnosis_test.py fails otherwise. The form
is that of sha256sum: `cd genhmr_jax/assets && sha256sum --check SHA256SUMS`.
"""

import hashlib
from pathlib import Path

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.diagnosis import ASSETS, SUMS


def sums(folder: Path) -> str:
    """The content of the list for a folder."""
    files = sorted(
        (file.relative_to(folder).as_posix(), file)
        for file in folder.rglob("*")
        if file.is_file() and file.name != SUMS and not file.name.startswith(".")
    )
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}\n" for name, file in files
    )


if __name__ == "__main__":
    with atomic_path(ASSETS / SUMS) as temporary:
        temporary.write_text(sums(ASSETS), encoding="utf-8")
