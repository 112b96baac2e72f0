"""FreiHAND: single right hands, 224 x 224 px, with keypoints, MANO fits and meshes.

Zimmermann et al., ICCV 2019. The layout is that of github.com/lmb-freiburg/freihand (5ea4ab9):

* `utils/fh_utils.py`, `load_db_annotation`: training_K.json, training_mano.json and
  training_xyz.json are lists with an entry for each of the 32560 samples. `projectPoints`: pixels
  are K times the points, so xyz is in metres in OpenCV's axes of the camera.
* `sample_version.map_id`: a training sample has four images: with green screen ("gs"), and with
  three new backgrounds ("hom", "sample", "auto"). Image number i of version v is
  training/rgb/%08d.jpg % (i + 32560 v), v = 0..3 in this order.
* `eval.py`, `main`: evaluation_xyz.json and evaluation_verts.json; README: the evaluation labels
  were published later, as a download of their own.
* `utils/model.py`, `split_theta` and `view_samples.py`: an entry of mano.json is (1, 61): pose
  (48), betas (10), the root in px (2) and a scale (1). `HandModel(use_mean_pca=False,
  use_mean_pose=True)`: the 45 numbers of the fingers are axis-angle, relative to the mean pose.
* `utils/mano_utils.py`, `get_keypoints_from_mesh_ch`: the order of keypoints is HAND21. The tips
  are vertices 744, 320, 443, 555 and 672, of which ours (smplx's) differ by one for two fingers.

`trans` is None: the release has none; the wrist's position needs MANO's shape. All hands are right
hands. The box is the smallest one around the keypoints and vertices: the release has none.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genhmr_jax.data.hands.releases.reading import finite, next_or_none, present, together
from genhmr_jax.data.hands.releases.record import HandRecord, project, tight_box, weighted
from genhmr_jax.data.sources.photos import flat_numbers, photo_size
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError

SPLITS = ("training", "evaluation")
VERSIONS = ("gs", "hom", "sample", "auto")
"""The versions of a training image, in the order of the numbers of the files."""

UNIQUE = 32560
"""Training samples; version v of sample i is image i + UNIQUE v."""


def records(
    root: str | Path,
    split: str,
    report: Report | None = None,
    *,
    versions: Sequence[str] = VERSIONS,
) -> Iterator[HandRecord]:
    """The samples of a split, in their order; the versions of a sample follow each other.

    Args:
      root: FreiHAND_pub_v2, the folder with training/ and training_xyz.json.
      split: "training", or "evaluation", which has only the camera if the labels of the evaluation
        are not there.
      report: of bad samples; None stops at the first.
      versions: of VERSIONS, for the training split.

    Raises:
      InputError: an unknown split or version, a file of the release is missing, or a sample is bad
        and `report` does not skip.
    """
    report = report or SOURCE.report()
    SOURCE.check_split(split)
    if unknown := [version for version in versions if version not in VERSIONS]:
        raise InputError(unknown[0], "is no version of FreiHAND", f"choose {', '.join(VERSIONS)}")
    root, train = Path(root), split == "training"
    names = [f"{split}_{kind}.json" for kind in ("K", "xyz", "mano", "verts")]
    paths = [report.require(root / name) for name in (names[:3] if train else names[:1])]
    paths += [root / name for name in names[len(paths) :] if (root / name).is_file()]
    folder = report.require(root / split / "rgb")
    shifts = [UNIQUE * VERSIONS.index(version) for version in versions] if train else [0]
    entries, number = together(paths), -1
    while (entry := next_or_none(entries, report)) is not None:
        number += 1
        where, labels = f"{root / split}: sample {number}", None
        with report.skipping():
            content = {
                path.stem.split("_")[-1]: value for path, value in zip(paths, entry, strict=True)
            }
            labels = _labels(content, where)
        for shift in shifts if labels is not None else ():
            record = None
            with report.skipping():
                image = present(folder / f"{number + shift:08d}.jpg", where)
                if "box" not in labels:
                    width, height = photo_size(image.read_bytes(), where)
                    labels["box"] = np.array([0.0, 0.0, width, height])
                name = f"{split}/{image.stem}"
                record = HandRecord(name=name, image=image, right=True, **labels)
            if record is not None:
                yield record


def _labels(content: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of a record that its versions share; "box" only with labels."""
    camera = finite(content["K"], (3, 3), "K", where)
    labels: dict[str, Any] = {"intrinsics": camera}
    outline = []
    if "xyz" in content:
        points = finite(content["xyz"], (21, 3), "xyz", where)
        pixels = project(points, camera, where)
        labels |= {"keypoints3d": points, "wrist": points[0], "keypoints": weighted(pixels)}
        outline.append(pixels)
    if "verts" in content:
        vertices = finite(content["verts"], (778, 3), "verts", where)
        labels["vertices"] = vertices
        outline.append(project(vertices, camera, where))
    if "mano" in content:
        mano = flat_numbers(content["mano"], 61, "mano", where)
        labels |= {"pose": mano[:48], "pose_form": "mean", "betas": mano[48:58]}
    if outline:
        labels["box"] = tight_box(*outline)
    return labels


SOURCE = Source(
    name="freihand",
    kind="hands",
    splits=SPLITS,
    folder="FreiHAND_pub_v2",
    layout=(
        "FreiHAND: download version 2 and, apart from it, the evaluation set with labels from "
        "https://lmb.informatik.uni-freiburg.de/resources/datasets/FreihandDataset.en.html, and "
        "unpack both as FreiHAND_pub_v2/training/rgb/00000000.jpg, "
        "FreiHAND_pub_v2/training_{K,xyz,mano,verts}.json, "
        "FreiHAND_pub_v2/evaluation/rgb/00000000.jpg and "
        "FreiHAND_pub_v2/evaluation_{K,xyz,mano,verts}.json in the manual directory."
    ),
    licence="research only, not commercial",
    citation=(
        "Zimmermann et al., FreiHAND: A Dataset for Markerless Capture of Hand Pose and Shape "
        "from Single RGB Images, ICCV 2019"
    ),
    read=records,
)
