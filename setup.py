"""Finds the packages; all else is in setup.cfg, whose own finder knows only one source root."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(".", include=["genhmr_jax*"]),
        *find_packages("third_party/smpl_jax", include=["smpl_jax*"]),
    ],
    package_dir={"smpl_jax": "third_party/smpl_jax/smpl_jax"},
)
