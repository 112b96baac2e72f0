"""Writes the seeds of the fuzzer: small well-formed files of every format.

    python tools/reliability/fuzz_seeds.py

They become tests/fuzz_corpus/TARGET/seed_N. Other files of the corpus are not changed.
"""

import collections
import io
import json
import pathlib
import pickle
import sys
import tarfile
import tempfile
import zipfile

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "third_party" / "smpl_jax" / "tests")]
CORPUS = ROOT / "tests" / "fuzz_corpus"

from smpl_reference import python2_array, python2_chumpy, python2_csc, python2_pickle  # noqa: E402

from genhmr_jax.io.video_writer import VideoWriter  # noqa: E402
from support.fakes import fake_people  # noqa: E402
from support.torch_fixtures import fake, modules, save, save_safetensors  # noqa: E402

RNG = np.random.default_rng(0)
BVH = """HIERARCHY
ROOT Hips
{
OFFSET 0 0 0
CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
JOINT Leg
{
OFFSET 0 -1 0
CHANNELS 3 Zrotation Xrotation Yrotation
End Site
{
OFFSET 0 -1 0
}
}
}
MOTION
Frames: 2
Frame Time: 0.01
0 1 0 10 20 30 1 2 3
0 1 0 10 20 30 1 2 3
"""
ASF = """:units
angle deg
:root
order TX TY TZ RX RY RZ
axis XYZ
position 0 0 0
orientation 0 0 0
:bonedata
begin
name leg
direction 0 -1 0
length 2
axis 0 0 20 XYZ
dof rx ry rz
end
begin
name foot
direction 0 0 1
length 1
axis 0 0 0 XYZ
dof rx
end
:hierarchy
begin
root leg
leg foot
end
"""
AMC = "#!OML\n:FULLY-SPECIFIED\n:DEGREES\n1\nroot 0 1 0 0 0 0\nleg 1 2 3\nfoot 4\n2\n"
AMC += "root 0 1 0 0 0 0\nleg 1 2 3\nfoot 4\n"
PLY = """ply
format ascii 1.0
element vertex 3
property float x
property float y
property float z
element face 1
property list uchar int vertex_indices
end_header
0 0 0
1 0 0
0 1 0
3 0 1 2
"""


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()[: 6 * 1024 if mode == "w" else None]  # less padding


def _picture(form: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    pixels = np.add.outer(np.arange(20), 3 * np.arange(24))[..., None] + [0, 40, 80]
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def _body() -> dict[str, np.ndarray]:
    """A body of 30 vertices."""
    count = 30
    return {
        "v_template": RNG.normal(size=(count, 3)).astype("f4"),
        "shapedirs": np.zeros((count, 3, 2), "f4"),
        "posedirs": np.zeros((count, 3, 207), "f2"),
        "J_regressor": np.eye(24, count),
        "weights": np.eye(count, 24, dtype="f4"),
        "kintree_table": np.stack([np.arange(-1, 23), np.arange(24)]),
        "f": np.array([[0, 1, 2]]),
    }


def _pickles() -> dict[str, list[bytes]]:
    body = _body()
    small = {"v_template": body["v_template"][:3], "f": body["f"]}
    chumpy = python2_chumpy("chumpy.ch.Ch", {"x": python2_array(small["v_template"])})
    select = {"a": chumpy, "idxs": python2_array(np.arange(3)), "preferred_shape": (3, 1)}
    official = {
        "v_template": chumpy,
        "shapedirs": python2_chumpy("chumpy.reordering.Select", select),
        "J_regressor": python2_csc(np.eye(3)),
        "bs_type": "lrotmin",
    }
    person = {
        "body_pose": np.zeros(72, "f4"), "betas": np.zeros(10, "f4"), "has_body_pose": 1.0,
        "has_betas": 1.0, "center": np.array([24.0, 16.0]), "scale": np.array([0.1, 0.1]),
        "keypoints_2d": np.ones((44, 3), "f4"), "keypoints_3d": np.ones((44, 4), "f4"),
        "extra_info": {"fitting_loss": {"reprojection_loss": 0.1}, "detection_npz_idx": 0},
    }  # fmt: skip
    objects = {"a": np.array([{"b": 1}, None], object), "c": {1, 2.5}, "d": (b"x", "\u00e9", True)}
    return {
        "pickle": [
            python2_pickle(official),
            *(pickle.dumps({**small, **objects}, protocol) for protocol in (0, 2, 4, 5)),
        ],
        "smpl": [_npz(**body), python2_pickle(official)],
        "people": [pickle.dumps([person], protocol) for protocol in (2, 4)],
    }


def _checkpoints(folder: pathlib.Path) -> dict[str, list[bytes]]:
    node = fake("yacs.config", "CfgNode", dict)
    content = {
        "state_dict": collections.OrderedDict(a=np.ones((2, 2), "f4"), b=np.arange(2)),
        "hparams": node(lr=0.1), "epoch": 3,
    }  # fmt: skip
    with modules(node):
        whole = save(folder / "x.ckpt", content, node)
        legacy = save(folder / "x.pth", content, node, legacy=True)
    with zipfile.ZipFile(whole) as archive:
        inside = archive.read("archive/data.pkl")
    tensors = save_safetensors(folder / "x.safetensors", {"a": np.ones((2, 2), "f4")})
    size = int.from_bytes(tensors.read_bytes()[:8], "little")
    return {
        "torch_pickle": [inside],
        "torch_zip": [whole.read_bytes()],
        "torch_legacy": [legacy.read_bytes()],
        "safetensors": [tensors.read_bytes()[8 : 8 + size]],
        "safetensors_file": [tensors.read_bytes()],
    }


def _archives(folder: pathlib.Path) -> dict[str, list[bytes]]:
    samples = {"a.jpg": b"x", "a.data.pyd": b"y", "d/b.jpg": b"z", "d/" + "n" * 120: b"w"}
    arrays = (np.ones((2, 3)), np.array([{"x": [1]}], object), np.array(["ab"]), np.asfortranarray(
        np.eye(2, dtype="f4")))  # fmt: skip
    planes = _npy(np.zeros((4, 2, 2), np.uint8))
    fake_people(1).save(folder / "people.npz")
    head = {"rows": 2, "columns": {"a": [[2], "<f4"], "b": [[], "|u1"]}, "notes": {"x": 1}}
    return {
        "npz": [_npz(a=arrays[0], b=arrays[1])],
        "npy": [_npy(array) for array in arrays],
        "tar": [_tar(samples)],
        "tar_file": [_tar(samples), *(_tar(samples, f"w:{kind}") for kind in ("gz", "bz2", "xz"))],
        "model_folder": [b'{"kind": "genhmr", "spec": {}}\0\0' + planes],
        "results": [(folder / "people.npz").read_bytes()],
        "result_array": [_npy(np.zeros((1, 4), "f4"))],
        "row_table": [json.dumps(head).encode()],
    }


def _texts() -> dict[str, list[bytes]]:
    person = {"image_id": 1, "category_id": 1, "bbox": [4, 4, 30, 40], "score": 0.5,
              "keypoints": [9, 9, 2] * 16 + [20, 30, 2]}  # fmt: skip
    image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
    hand = [9, 9, 1] * 20 + [20, 30, 1]
    forms = (
        {"a": [1, 2, 30, 40]},
        {"images": [image], "annotations": [person], "categories": [{"id": 1, "name": "person"}]},
        {"people": [{"pose_keypoints_2d": [9, 9, 1] * 24 + [20, 30, 1],
                     "hand_left_keypoints_2d": hand}]},
        {"instance_info": [{"keypoints": [[9, 9]] * 16 + [[20, 30]], "keypoint_scores": [1] * 17,
                            "bbox": [[1, 2, 30, 40]]}]},
        {"a": {"intrinsics": [[900, 0, 30], [0, 900, 20], [0, 0, 1]]}},
        {"a": {"focal": 900, "principal_point": [30, 20]}},
        {"a": {"boxes": [[1, 2, 30, 40]], "keypoints": [[[9, 9, 1]]], "names": ["nose"]}},
    )  # fmt: skip
    lines = (
        "recover\nx.jpg\n--out\nout\n--fov\n60\n--save\nobj,glb",
        "data\nlist\namass",
        "convert\nx.ckpt\n--out\nm",
        "view\nx.npz\n--out\nx.html",
        "--version",
        "eval\n--help",
        "fit\na.obj\n--out\nx.npz",
        "data\nbuild\namass\n--manual-dir\nm\n--data-dir\nd",
    )
    fields = ("steps=7\nuse=true\nname=~/x\noptim.rate=1e-3\nsizes=(3,4)\noptim.betas=[1, 2]",
              "--config.steps=0x10\nempty=None", "x.py:arg")  # fmt: skip
    return {
        "annotations": [json.dumps(form).encode() for form in forms],
        "release_json": [b"[[1, 2, 3], [4, 5, 6]]", b'{"K": [[1, 0], [0, 1]]}'],
        "release_yaml": [b"[1, 2.5]\n", b"betas: [1, 2]\ncolor:\n  fx: 1.0\n", b"- &a 1\n- *a\n"],
        "config": [text.encode() for text in fields],
        "cli": [text.encode() for text in lines],
        "bvh": [BVH.encode()],
        "asf_amc": [ASF.encode() + b"\0" + AMC.encode()],
        "obj": [b"v 0 0 0\nv 1 0 0 0.5\nv\t0 1 0\nf 1 2 3\n"],
        "ply": [PLY.encode(), _binary_ply()],
    }


def _binary_ply() -> bytes:
    head = PLY.split("end_header")[0].replace("ascii", "binary_little_endian")
    corners = np.eye(3, dtype="<f4").tobytes() + b"\3" + np.arange(3, dtype="<i4").tobytes()
    return f"{head}end_header\n".encode() + corners


def _pictures(folder: pathlib.Path) -> dict[str, list[bytes]]:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 35
    exif = exif.tobytes()
    jpeg, png = _picture("JPEG", exif=exif), _picture("PNG", exif=exif)
    images = [
        jpeg, png, _picture("WEBP", exif=exif), _picture("AVIF", exif=exif), _picture("GIF"),
        _picture("BMP"), _picture("TIFF", exif=exif), _picture("TIFF", compression="tiff_lzw"),
        _picture("PPM"), _picture("TGA"), _picture("JPEG2000"), _picture("JPEG", "CMYK"),
        _picture("PNG", "I;16"), _picture("PNG", "P"), _picture("PNG", "RGBA"),
    ]  # fmt: skip
    videos = []
    for suffix in ("mp4", "mkv", "avi", "mpg"):
        path = folder / f"x.{suffix}"
        with VideoWriter(path, (32, 32), 25.0) as writer:
            for frame in range(3):
                writer.write(np.full((32, 32, 3), 60 * frame, np.uint8))
        videos.append(path.read_bytes())
    animated = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    stream = io.BytesIO()
    animated[0].save(stream, "GIF", save_all=True, append_images=animated[1:], duration=40)
    return {
        "metadata": images[:4] + [images[6], exif],
        "image": images,
        "png": [png, *images[12:]],
        "video": [*videos, stream.getvalue()],
    }


def main() -> None:
    """Write all seeds."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        every = {
            **_pickles(), **_checkpoints(folder), **_archives(folder), **_texts(),
            **_pictures(folder),
        }  # fmt: skip
    for target, seeds in every.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (CORPUS / target / f"seed_{number}").write_bytes(seed)
        print(f"{target:18} {len(seeds)} seeds, {sum(map(len, seeds))} bytes")


if __name__ == "__main__":
    main()
