"""The trainings of the campaign: every `tiny` recipe, and the data that some of them need."""

import dataclasses
import io
import json
import pathlib

import numpy as np
from PIL import Image

from genhmr_jax.data import builders, features
from genhmr_jax.data.hands import lifter_rows
from genhmr_jax.data.hands.pictures import Pictures
from genhmr_jax.data.synthetic import write
from genhmr_jax.geometry.anatomy import ANGLES
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.systems.biopose.labels import AngleClips

ROOT = pathlib.Path(__file__).resolve().parents[3]
STEPS = 12
EVERY = 3  # steps between checkpoints
IMAGES = {"train": 6, "val": 4}


@dataclasses.dataclass(frozen=True)
class System:
    """A training.

    Attributes:
      name: of the training in the table.
      recipe: SYSTEM/RECIPE of configs/.
      flags: overrides of fields; {refs} and {data} are the folders of the campaign.
      needs: the trainings whose models it uses.
      processes: of a run.
      records: files that its batches are read from, a pattern below {data}; "" for none.
    """

    name: str
    recipe: str
    flags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    processes: int = 1
    records: str = ""


_POSES = ("data.poses={data}/poses.npz",)
_CROPS = ("data.images={data}/crops", "data.mixture=hmr2", "data.people_val=")
_PHOTOS = ("data.people={data}/built", "data.mixture=own_photos", "data.people_val=own_photos:val")
SYSTEMS = (
    System("tokenizer", "tokenizer/tiny", _POSES, records="poses.npz"),
    System("genhmr", "genhmr/tiny", ("tokenizer={refs}/tokenizer/model",), ("tokenizer",)),
    System("hmr2 on stored rows", "regressors/tiny", _CROPS, records="crops/train/*.npy"),
    System("hmr2 on photos", "regressors/tiny", _PHOTOS, records="built/*/train/*/*array_record*"),
    System("tokenhmr", "regressors/tiny_tokenhmr", _CROPS, records="crops/train/*.npy"),
    System("mqhmr", "regressors/tiny_mqhmr", _CROPS, records="crops/train/*.npy"),
    System("lifter", "lifter/tiny", ("data.images={data}/people",)),
    System("hand lifter", "hand_lifter/tiny", ("data.images={data}/hands",)),
    System("mesh2d", "mesh2d/tiny"),
    System("posturehmr", "posturehmr/tiny", ("mesh2d={refs}/mesh2d/model",), ("mesh2d",)),
    System("neurik", "neurik/tiny", ("data.angles={data}/angles.npz",), records="angles.npz"),
    System("hand tokenizer", "hand_tokenizer/tiny"),
    System(
        "maskhand", "maskhand/tiny", ("tokenizer={refs}/hand tokenizer/model",), ("hand tokenizer",)
    ),
    System("tokenizer, 2 processes", "tokenizer/tiny", ("mesh.data=2",), processes=2),
)


def arguments(
    system: System, workdir: pathlib.Path, out: pathlib.Path, data: pathlib.Path
) -> list[str]:
    """The arguments of genhmr_jax.main for a run of a few steps with many checkpoints."""
    flags = [text.format(refs=out / "refs", data=data) for text in system.flags]
    short = (
        f"steps={STEPS}",
        f"checkpoint_every={EVERY}",
        f"evaluate_every={STEPS}",
        "log_every=1",
        "optim.warmup=2",
        "input.threads=1",
        "input.prefetch=1",
    )
    config = [f"--config={ROOT}/configs/{system.recipe}.py", f"--workdir={workdir}"]
    return config + [f"--config.{flag}" for flag in (*short, *flags)]


def write_poses(file: pathlib.Path) -> None:
    """A pose corpus of 300 made-up poses in three clips, the last for validation."""
    rng = np.random.default_rng(0)
    poses = np.cumsum(rng.normal(0, 0.02, (300, 72)), 0) + rng.normal(0, 0.2, 72)
    clip = np.repeat([0, 1, 2], [50, 150, 100])
    np.savez(file, poses=poses.astype(np.float16), split=(clip == 2).astype(np.int8), seq_id=clip)


def write_angles(file: pathlib.Path) -> None:
    """Six made-up motions with joint angles, the last two for validation.

    The angles are not those of the poses: a training of a few steps needs no true ones.
    """
    rng, clips, frames = np.random.default_rng(0), 6, 40
    waves = lambda width: np.sin(
        rng.uniform(0, 6, width) + rng.uniform(0, 0.2, width) * np.arange(clips * frames)[:, None]
    )
    motions = AngleClips(
        poses=(0.3 * waves(72)).astype(np.float32),
        angles=(0.3 * waves(len(ANGLES))).astype(np.float32),
        translation=np.zeros((clips * frames, 3), np.float32),
        rmse=np.full(clips * frames, 0.01, np.float32),
        ends=frames * np.arange(1, clips + 1),
        betas=rng.normal(size=(clips, 10)).astype(np.float32),
        scales=np.ones((clips, 11), np.float32),
        split=np.array([0, 0, 0, 0, 1, 1], np.int8),
        names=np.array(list("uvwxyz")),
        subjects=np.array(list("aabbcd")),
    )
    np.savez(file, **vars(motions))


def write_hands(folder: pathlib.Path) -> None:
    """Rows of a few rendered hands."""
    for split, count in IMAGES.items():
        lifter_rows.write_rows(folder / split, 2 * count, Pictures("made-up", split))


def write_images(folder: pathlib.Path) -> None:
    """A few rendered people."""
    for seed, (split, count) in enumerate(IMAGES.items()):
        write.write_split(folder, split, count, "made-up", seed=seed, size=192, workers=1)


def write_release(folder: pathlib.Path, images: pathlib.Path) -> None:
    """The rendered people as a user's own photos, with keypoints and fits (docs/finetuning.md)."""
    for split in IMAGES:
        target = folder / "own_photos" / split
        (target / "fits").mkdir(parents=True)
        keypoints = {}
        for number, sample in enumerate(write.read_shards(images / split)):
            content = io.BytesIO()
            Image.fromarray(sample.image).save(content, "JPEG", quality=90)
            (target / f"{number}.jpg").write_bytes(content.getvalue())
            people = {"keypoints": sample.keypoints[None].tolist(), "names": list(DETECTED)}
            keypoints[str(number)] = people
            body = ("global_orient", "body_pose", "betas", "translation")
            fit = {name: getattr(sample, name)[None] for name in body}
            middle = np.full(2, sample.image.shape[0] / 2, np.float32)
            camera = {"focal_length": np.float32(sample.focal), "principal_point": middle}
            np.savez(target / "fits" / f"{number}.npz", **fit, **camera)
        (target / "keypoints.json").write_text(json.dumps(keypoints))


def build_photos(folder: pathlib.Path, release: pathlib.Path) -> None:
    """The photos as array_record."""
    for split in IMAGES:
        builders.build("own_photos", release, folder, split)


def compute_features(folder: pathlib.Path, images: pathlib.Path, encoder: str) -> None:
    """Rows of the rendered people with the outputs of an encoder."""
    for split in IMAGES:
        features.compute(images, folder, split, encoder)
