"""Photos to training crops, in images a second: this pipeline against a PyTorch DataLoader with OpenCV, on the same JPEGs, cores and boxes.

    python benchmarks/data_pipeline.py [--images DIR] [--cores 2] [--batch 64] [--batches 12] [--repeats 3] [--out FILE.json]

Needs torch (CPU) and opencv-python-headless beside genhmr_jax. Both sides read the same encoded files from memory, decode, take the same
turned and mirrored square (HMR2's augmentation) with anti-aliasing when they shrink, change the colours, and deliver batches of uint8 crops
of 256 px with their labels. The other side works as HMR2's code does: whole image decoded, Gaussian blur of sigma (shrinking - 1) / 2 over
all of it, bilinear cv2.warpAffine, one process for each core. `opencv-crop` is a tuned version of that, which blurs only the part of the
image that it needs. The sides take turns, and the best of the repeats counts: other work on the machine only ever takes away.
"""

import argparse
import io
import json
import os
import pathlib
import time

import numpy as np

PEOPLE = ((640, 480, 400), (640, 427, 250), (1000, 1002, 620), (1280, 720, 540), (1920, 1080, 800), (500, 375, 330))
"""Width, height and the height of the person, px: as in COCO, Human3.6M, InstaVariety, AVA, and small ones."""


def records(folder: str, count: int) -> list[dict]:
    """Person records of JPEGs of a folder, or of made-up ones with the spectrum of photographs."""
    from PIL import Image

    from genhmr_jax.data.sources.records import person_record

    random, made = np.random.default_rng(0), []
    files = sorted(p for p in pathlib.Path(folder).iterdir() if p.suffix.lower() in (".jpg", ".jpeg")) if folder else []
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
        keypoints = np.concatenate([random.uniform(middle - half, middle + half, (44, 2)), np.ones((44, 1))], -1)
        box = np.concatenate([middle - half, middle + half])
        pose = dict(global_orient=random.normal(0, 1, 3), body_pose=random.normal(0, 0.2, 69), betas=random.normal(0, 1, 10))
        made.append(person_record("benchmark", image=data, image_size=(width, height), box=box, keypoints2d=keypoints, **pose))
    return made


def _photo(random: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG of noise with amplitude 1 / frequency, which compresses about as well as a photograph."""
    from PIL import Image

    noise = np.fft.rfft2(random.normal(0, 1, (height, width, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None, None], np.fft.rfftfreq(width)[None, :, None])
    image = np.fft.irfft2(noise / np.maximum(frequency, 1 / width) ** 1.2, (height, width), axes=(0, 1))
    stream = io.BytesIO()
    Image.fromarray((128 + 50 * image / image.std()).clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


class OpenCv:
    """A torch Dataset: the same samples by OpenCV and NumPy, written as HMR2's loader works."""

    def __init__(self, people: list[dict], numbers: int, seed: int, whole_blur: bool):
        from genhmr_jax.data.poses import sample_hash

        self.people, self.seed, self.whole_blur, self.numbers = people, seed, whole_blur, numbers
        self.index = (sample_hash(np.arange(numbers), seed + 1) * len(people)).astype(int)

    def __len__(self) -> int:
        return self.numbers

    def __getitem__(self, number: int) -> dict:
        import cv2
        from scipy.spatial.transform import Rotation
        from smpl_jax.keypoints import BODY44_FLIP, flip_rotmats

        from genhmr_jax.data import augment

        cv2.setNumThreads(0)
        record = self.people[self.index[number]]
        change = augment.draw(augment.AugmentSpec(occlude=0), self.seed, number)
        square = augment.crop_square(record["box"], record["keypoints2d"], change)
        view = augment.view_of(record["image_size"], None, change)
        crop = view.crop(square)
        image = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        matrix = view.crop_matrix(crop, 256)
        matrix[:, 2] += matrix[:, :2] @ np.full(2, 0.5) - 0.5  # OpenCV's pixel centres are whole numbers
        shrink = crop[2] / 256
        if not self.whole_blur:
            corners = matrix @ np.array([[0, 255, 0, 255], [0, 0, 255, 255], [1, 1, 1, 1]])
            reach = 3 + 4 * max(shrink - 1, 0)
            low = np.clip(np.floor(corners.min(1) - reach), 0, np.array(image.shape[1::-1]) - 1).astype(int)
            high = np.clip(np.ceil(corners.max(1) + reach), low + 1, image.shape[1::-1]).astype(int)
            image, matrix = image[low[1] : high[1], low[0] : high[0]], matrix - np.array([[0, 0, low[0]], [0, 0, low[1]]])
        if shrink > 1.1:
            image = cv2.GaussianBlur(image, (0, 0), (shrink - 1) / 2)
        patch = cv2.warpAffine(image, matrix, (256, 256), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)[:, :, ::-1]
        patch = np.clip(patch * np.array(change.colour, np.float32), 0, 255).astype(np.uint8)
        rotmats = Rotation.from_rotvec(np.concatenate([record["global_orient"], record["body_pose"]]).reshape(24, 3)).as_matrix()
        rotmats = flip_rotmats(rotmats) if change.flip else rotmats
        keypoints = record["keypoints2d"].copy()
        keypoints[:, :2] = (view.pixels(keypoints[:, :2]) - crop[:2]) / crop[2]
        keypoints = keypoints[np.array(BODY44_FLIP)] if change.flip else keypoints
        return {
            "images": np.ascontiguousarray(patch),
            "rotmats": rotmats.astype(np.float32),
            "betas": record["betas"],
            "keypoints": keypoints,
        }


def time_ours(people: list[dict], cores: int, size: int, batches: int) -> float:
    """Images a second of PeopleSource with grain's threads; the first batches, which fill the buffers, do not count."""
    from genhmr_jax.body import load_body
    from genhmr_jax.data.augment import AugmentSpec
    from genhmr_jax.data.people import Dataset, PeopleSource
    from genhmr_jax.data.pipeline import _grain_batches

    source = PeopleSource([Dataset("benchmark", people)], size, 0, load_body("neutral"), AugmentSpec(occlude=0))
    iterator = iter(_grain_batches(lambda step: source.load(step * size + np.arange(size)), 0, batches + 2 * cores, cores, cores))
    return _rate(iterator, cores, size, batches)


def time_torch(people: list[dict], cores: int, size: int, batches: int, whole_blur: bool) -> float:
    """The same of a DataLoader with a worker process for each core."""
    from torch.utils.data import DataLoader

    dataset = OpenCv(people, (batches + 2 * cores) * size, 0, whole_blur)
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Photos to training crops: images a second, against PyTorch with OpenCV.")
    parser.add_argument("--images", default="", help="folder of JPEGs; made-up photos without it")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    people = records(args.images, 48)
    sides = {
        "ours": lambda: time_ours(people, args.cores, args.batch, args.batches),
        "opencv": lambda: time_torch(people, args.cores, args.batch, args.batches, True),
        "opencv-crop": lambda: time_torch(people, args.cores, args.batch, args.batches, False),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.repeats):
        for name, measure in sides.items():
            rates[name].append(measure())
    best = {name: max(values) for name, values in rates.items()}
    kilobytes = np.mean([len(person["image"]) for person in people]) / 1000
    print(f"{args.cores} cores, JPEGs of {kilobytes:.0f} kB, batches of {args.batch}")
    for name, rate in best.items():
        print(f"{name:12s} {rate:7.1f} images/s   ours is {best['ours'] / rate:.2f} x as fast")
    if args.out:
        args.out.write_text(json.dumps({"cores": args.cores, "batch": args.batch, "images_per_second": rates}, indent=1))


if __name__ == "__main__":
    main()
