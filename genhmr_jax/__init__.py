"""Generative human mesh recovery (GenHMR) in JAX: the 3D body meshes of people in photos and clips.

    people = genhmr_jax.load().recover(genhmr_jax.read_image("photo.jpg"))
    clip = genhmr_jax.recover_clip("clip.mp4", genhmr_jax.load())

The names below are imported on first use, so `import genhmr_jax` and `genhmr --help` are fast.
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "Clip": "genhmr_jax.recover.clip",
    "ClipOptions": "genhmr_jax.recover.clip_recovery",
    "HandMeshes": "genhmr_jax.recover.hands",
    "HandRecoverer": "genhmr_jax.recover.hands",
    "InputError": "genhmr_jax.io.errors",
    "People": "genhmr_jax.recover.people",
    "RecoverOptions": "genhmr_jax.recover.photo",
    "Recoverer": "genhmr_jax.recover.photo",
    "load": "genhmr_jax.recover.photo",
    "load_hands": "genhmr_jax.recover.hands",
    "open_clip": "genhmr_jax.io.video",
    "read_image": "genhmr_jax.io.images",
    "recover_clip": "genhmr_jax.recover.clip_recovery",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'genhmr_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_PUBLIC))
