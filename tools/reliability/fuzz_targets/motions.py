"""Targets: text files of skeletons, motions and meshes."""

from fuzz_targets.target import Target, file, refusing
from genhmr_jax.data.sources.asf import read_amc, read_asf
from genhmr_jax.data.sources.bvh import read_bvh
from genhmr_jax.io.mesh_files import read_vertices

_BVH = (
    b"HIERARCHY\n", b"ROOT hip\n", b"JOINT a\n", b"End Site\n", b"{\n", b"}\n", b"OFFSET 0 1 0\n",
    b"CHANNELS 3 Zrotation Yrotation Xrotation\n", b"CHANNELS 2 Xrotation Xrotation\n", b"MOTION\n",
    b"Frames: 1\n", b"Frame Time: 0.01\n", b"\xb2", b"nan", b"1e400",
)  # fmt: skip
_ASF = (
    b":units\n", b"angle deg\n", b":root\n", b"order TX TY TZ RX RY RZ\n", b"axis XYZ\n",
    b":bonedata\n", b"begin\n", b"end\n", b"name a\n", b"direction 0 1 0\n", b"length 1\n",
    b"axis 0 0 0 XYZ\n", b"dof rx ry rz\n", b":hierarchy\n", b"root a\n", b"a b\n", b"\0",
    b":DEGREES\n", b"1\n", b"root 0 0 0 0 0 0\n", b"\xb2\n", b"nan",
)  # fmt: skip
_MESH = (
    b"v 1 2 3\n", b"ply\n", b"format ascii 1.0\n", b"format binary_little_endian 1.0\n",
    b"element vertex 3\n", b"element vertex 1000000000\n", b"property float x\n",
    b"property list uchar int vertex_indices\n", b"end_header\n", b"nan",
)  # fmt: skip


def _bvh(data: bytes) -> None:
    with refusing():
        motion = read_bvh(file("x.bvh", data))
        assert motion.rotations.shape == (len(motion.root), len(motion.names), 3, 3)


def _asf_amc(data: bytes) -> None:
    """An .asf, a NUL, and an .amc."""
    asf, _, amc = data.partition(b"\0")
    with refusing():
        skeleton = read_asf(file("x.asf", asf))
        motion = read_amc(file("x.amc", amc), skeleton)
        assert motion.rotations.shape == (len(motion.root), len(motion.names), 3, 3)


def _obj(data: bytes) -> None:
    with refusing():
        assert read_vertices(file("x.obj", data)).shape[1:] == (3,)


def _ply(data: bytes) -> None:
    with refusing():
        assert read_vertices(file("x.ply", data)).shape[1:] == (3,)


TARGETS = (
    Target("bvh", "data.sources.bvh.read_bvh", _bvh, tokens=_BVH),
    Target("asf_amc", "data.sources.asf.read_asf, read_amc", _asf_amc, tokens=_ASF),
    Target("obj", "io.mesh_files.read_vertices, OBJ", _obj, tokens=_MESH),
    Target("ply", "io.mesh_files.read_vertices, PLY", _ply, tokens=_MESH),
)
