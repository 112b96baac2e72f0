"""Images per second from photos to training crops: our pipeline and a DataLoader with OpenCV.

    python -m benchmarks.data_pipeline [--images DIR] [--cores 2] [--batch 64] [--batches 12] \\
        [--repeats 3] [--against opencv opencv-uint8 hmr2] [--out FILE.json]

The benchmark needs torch (CPU) and opencv-python-headless. All pipelines use the same JPEGs, cores
and boxes. They read encoded files from memory, decode them, take the same rotated and mirrored
square (HMR2's augmentation) with anti-aliasing, change the colours, and return batches of crops of
256 px with their labels. The other pipelines have one worker process for each core:

opencv        decodes the whole image, applies cv2.GaussianBlur of sigma (shrinking - 1) / 2 to it
              and then cv2.warpAffine. Returns normalised float32 (3, 256, 256), as the loaders of
              HMR2 and TokenHMR.
opencv-uint8  a tuned version: it blurs only the part of the image that the crop needs, and returns
              uint8, as ours.
hmr2          `opencv` with the blur of HMR2's own code: that of skimage (here scipy, which skimage
              calls) on the float64 image.

The pipelines run in turns, and the best of the repeats counts, because other work on the machine
can only slow them down. The time for one image on one otherwise idle core, without batches and
transfers between threads or processes, is printed beside the rate.
"""

import argparse
import importlib.util
import io
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.settings import ROOT, Settings
from benchmarks.table import Row
from benchmarks.timing import run_process

PEOPLE = (
    (640, 480, 400),
    (640, 427, 250),
    (1000, 1002, 620),
    (1280, 720, 540),
    (1920, 1080, 800),
    (500, 375, 330),
)
"""Width, height and the height of the person, px: as in COCO, Human3.6M, InstaVariety, AVA, and
small ones."""
MEAN, STD = (
    255 * np.array(v, np.float32)[:, None, None]
    for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def records(folder: str, count: int) -> list[dict]:
    """Person records of JPEGs of a folder, or of made-up ones with the spectrum of photographs."""
    from PIL import Image

    from genhmr_jax.data.sources.records import person_record

    random, made = np.random.default_rng(0), []
    files = (
        sorted(p for p in pathlib.Path(folder).iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
        if folder
        else []
    )
    for number in range(count):
        width, height, tall = PEOPLE[number % len(PEOPLE)]
        if files:
            data = files[number % len(files)].read_bytes()
            width, height = Image.open(io.BytesIO(data)).size
            tall = 0.7 * height
        else:
            data = _photo(random, width, height)
        middle = np.array([width, height]) * random.uniform(0.4, 0.6, 2)
        half = np.array([0.4 * tall, tall]) / 2
        keypoints = np.concatenate(
            [random.uniform(middle - half, middle + half, (44, 2)), np.ones((44, 1))], -1
        )
        box = np.concatenate([middle - half, middle + half])
        pose = dict(
            global_orient=random.normal(0, 1, 3),
            body_pose=random.normal(0, 0.2, 69),
            betas=random.normal(0, 1, 10),
        )
        made.append(
            person_record(
                "benchmark",
                image=data,
                image_size=(width, height),
                box=box,
                keypoints2d=keypoints,
                **pose,
            )
        )
    return made


def _photo(random: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG of noise with amplitude 1 / frequency, which compresses about as well as a
    photograph."""
    from PIL import Image

    noise = np.fft.rfft2(random.normal(0, 1, (height, width, 3)), axes=(0, 1))
    frequency = np.hypot(
        np.fft.fftfreq(height)[:, None, None], np.fft.rfftfreq(width)[None, :, None]
    )
    image = np.fft.irfft2(
        noise / np.maximum(frequency, 1 / width) ** 1.2, (height, width), axes=(0, 1)
    )
    stream = io.BytesIO()
    Image.fromarray((128 + 50 * image / image.std()).clip(0, 255).astype(np.uint8)).save(
        stream, "JPEG", quality=90
    )
    return stream.getvalue()


class OpenCv:
    """A torch Dataset: the same samples by OpenCV and NumPy, written as HMR2's loader works."""

    def __init__(self, people: list[dict], numbers: int, seed: int, way: str):
        from genhmr_jax.data.poses import sample_hash

        self.people, self.seed, self.way, self.numbers = people, seed, way, numbers
        self.index = (sample_hash(np.arange(numbers), seed + 1) * len(people)).astype(int)

    def __len__(self) -> int:
        return self.numbers

    def __getitem__(self, number: int) -> dict:
        import cv2
        from scipy.ndimage import gaussian_filter
        from scipy.spatial.transform import Rotation
        from smpl_jax.keypoints import BODY44_FLIP, flip_rotmats

        from genhmr_jax.data import augment

        cv2.setNumThreads(0)
        record = self.people[self.index[number]]
        change = augment.draw(augment.AugmentSpec(occlude=0), self.seed, number)
        square = augment.crop_square(record["box"], record["keypoints2d"], change)
        view = augment.view_of(record["image_size"], None, change)
        crop = view.crop(square)
        image = cv2.imdecode(
            np.frombuffer(record["image"], np.uint8),
            cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
        )
        matrix = view.crop_matrix(crop, 256)
        matrix[:, 2] += (
            matrix[:, :2] @ np.full(2, 0.5) - 0.5
        )  # OpenCV's pixel centres are whole numbers
        shrink = crop[2] / 256
        if self.way == "opencv-uint8":
            corners = matrix @ np.array([[0, 255, 0, 255], [0, 0, 255, 255], [1, 1, 1, 1]])
            reach = 3 + 4 * max(shrink - 1, 0)
            low = np.clip(
                np.floor(corners.min(1) - reach), 0, np.array(image.shape[1::-1]) - 1
            ).astype(int)
            high = np.clip(np.ceil(corners.max(1) + reach), low + 1, image.shape[1::-1]).astype(int)
            image, matrix = (
                image[low[1] : high[1], low[0] : high[0]],
                matrix - np.array([[0, 0, low[0]], [0, 0, low[1]]]),
            )
        if shrink > 1.1 and self.way == "hmr2":
            image = gaussian_filter(
                image.astype(np.float64), ((shrink - 1) / 2, (shrink - 1) / 2, 0)
            )
        elif shrink > 1.1:
            image = cv2.GaussianBlur(image, (0, 0), (shrink - 1) / 2)
        patch = cv2.warpAffine(
            image, matrix, (256, 256), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )[:, :, ::-1]
        if self.way == "opencv-uint8":
            levels = np.clip(
                np.arange(256)[:, None] * np.array(change.colour) + 0.5, 0, 255
            ).astype(np.uint8)
            patch = cv2.LUT(np.ascontiguousarray(patch), levels[None])
        else:
            patch = np.clip(
                patch.transpose(2, 0, 1).astype(np.float32)
                * np.array(change.colour, np.float32)[:, None, None],
                0,
                255,
            )
            patch = (patch - MEAN) / STD
        rotmats = Rotation.from_rotvec(
            np.concatenate([record["global_orient"], record["body_pose"]]).reshape(24, 3)
        ).as_matrix()
        rotmats = flip_rotmats(rotmats) if change.flip else rotmats
        keypoints = record["keypoints2d"].copy()
        keypoints[:, :2] = (view.pixels(keypoints[:, :2]) - crop[:2]) / crop[2]
        keypoints = keypoints[np.array(BODY44_FLIP)] if change.flip else keypoints
        return {
            "images": patch,
            "rotmats": rotmats.astype(np.float32),
            "betas": record["betas"],
            "keypoints": keypoints,
        }


def our_source(people: list[dict], size: int):
    """The PeopleSource with the other sides' augmentation."""
    from genhmr_jax.data.augment import AugmentSpec
    from genhmr_jax.data.mixtures import Dataset
    from genhmr_jax.data.people import PeopleSource
    from genhmr_jax.geometry.bodies import load_body

    return PeopleSource(
        [Dataset("benchmark", people)], size, 0, load_body("neutral"), AugmentSpec(occlude=0)
    )


def core_milliseconds(work, images: int, repeats: int = 3) -> float:
    """Time of a core for an image, when `work` makes so many of them in this thread."""
    work()
    best = np.inf
    for _ in range(repeats):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return 1000 * best / images


def time_ours(people: list[dict], cores: int, size: int, batches: int) -> float:
    """Images a second of PeopleSource with grain's threads; the first batches, which fill the
    buffers, do not count."""
    from genhmr_jax.data.pipeline import _grain_batches

    source = our_source(people, size)
    iterator = iter(
        _grain_batches(
            lambda step: source.load(step * size + np.arange(size)),
            0,
            batches + 2 * cores,
            cores,
            cores,
        )
    )
    return _rate(iterator, cores, size, batches)


def time_torch(people: list[dict], cores: int, size: int, batches: int, way: str) -> float:
    """The same of a DataLoader with a worker process for each core."""
    from torch.utils.data import DataLoader

    dataset = OpenCv(people, (batches + 2 * cores) * size, 0, way)
    loader = DataLoader(dataset, batch_size=size, num_workers=cores, prefetch_factor=2)
    return _rate(iter(loader), cores, size, batches)


def _rate(iterator, cores: int, size: int, batches: int) -> float:
    for _ in range(cores):  # everybody has started
        next(iterator)
    start = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    seconds = time.perf_counter() - start
    for _ in iterator:
        pass
    return batches * size / seconds


def rows(settings: Settings) -> list[Row]:
    """Crops a second of made-up photos, against OpenCV's loaders where they are installed.

    Measured in a process of its own: the workers of a DataLoader are forks, which must not be made
    of a process with JAX's threads.
    """
    rivals = ["opencv"] if settings.quick else ["opencv", "opencv-uint8"]
    if any(importlib.util.find_spec(name) is None for name in ("torch", "cv2")):
        rivals = []
    out = settings.work / "data_pipeline.json"
    command = [sys.executable, "-m", "benchmarks.data_pipeline", f"--out={out}", "--against"]
    command += [*rivals, *(["--batches=4", "--repeats=1"] if settings.quick else [])]
    run_process(command, settings.environment(), str(ROOT))
    found = json.loads(out.read_text())
    best = {name: max(values) for name, values in found["images_per_second"].items()}
    return [
        Row(
            f"photos to crops{f', against {rival}' if rival else ''}",
            best["ours"],
            "images/s",
            f"DataLoader, {rival}" if rival else "",
            best.get(rival),
            1000 * found["cores"] / found["decoding_ms"],
            "decoding of the JPEGs",
        )
        for rival in rivals or [""]
    ]


def decode(data: bytes) -> None:
    """Decode a JPEG for a crop of half its height, at the scale that libjpeg can."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (256, 256))
        image.load()


def compare(
    people: list[dict], cores: int, size: int, batches: int, repeats: int, rivals: Sequence[str]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Images a second of each repeat, and milliseconds of a core for an image, of every side."""
    sides = {"ours": lambda: time_ours(people, cores, size, batches)}
    source = our_source(people, size)
    one = {"ours": core_milliseconds(lambda: source.load(np.arange(size)), size)}
    for way in rivals:
        count = max(batches // 4, 1) if way == "hmr2" else batches
        sides[way] = lambda way=way, count=count: time_torch(people, cores, size, count, way)
        dataset = OpenCv(people, size, 0, way)
        one[way] = core_milliseconds(
            lambda dataset=dataset: [dataset[i] for i in range(size)], size
        )
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            rates[name].append(measure())
    return rates, one


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Photos to training crops: images a second, against PyTorch with OpenCV."
    )
    parser.add_argument("--images", default="", help="folder of JPEGs; made-up photos without it")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    ways = ("opencv", "opencv-uint8", "hmr2")
    parser.add_argument("--against", nargs="*", default=ways, choices=ways, help="the others")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    people = records(args.images, 48)
    rates, one = compare(people, args.cores, args.batch, args.batches, args.repeats, args.against)
    best = {name: max(values) for name, values in rates.items()}
    kilobytes = np.mean([len(person["image"]) for person in people]) / 1000
    print(f"{args.cores} cores, JPEGs of {kilobytes:.0f} kB, batches of {args.batch}")
    for name, rate in best.items():
        text = f"{name:13s} {rate:7.1f} images/s {one[name]:7.2f} ms of a core"
        if name != "ours":
            by_core = one[name] / one["ours"]
            text += f"   ours: {best['ours'] / rate:.2f} x the rate, {by_core:.2f} x by the core"
        print(text)
    if args.out:
        args.out.write_text(
            json.dumps(
                {
                    "cores": args.cores,
                    "batch": args.batch,
                    "images_per_second": rates,
                    "core_ms": one,
                    "decoding_ms": core_milliseconds(
                        lambda: [decode(person["image"]) for person in people], len(people)
                    ),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
