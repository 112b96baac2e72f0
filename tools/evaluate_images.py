"""Measures a model on rendered images with known bodies (python -m genhmr_jax.data.synthetic.write).

    python tools/evaluate_images.py --images runs/images/val [--checkpoint DIR] [--limit N] [--out FILE.json]

Every image is recovered from its pixels alone, with the system's own detector. Of the people found, the one whose 2D keypoints lie nearest
to the truth is the person. Printed: MPJPE (pelvis-aligned) and PA-MPJPE over the 24 joints, mm, mean and median, with sampling alone
and with refinement; reprojection error against the true keypoints, px; the share of people found. Someone who is not found counts with
the rest pose, upright and frontal.
"""

import argparse
import json
import pathlib

import numpy as np
from tqdm import tqdm

from genhmr_jax import compilation_cache, recover
from genhmr_jax.data.synthetic.generate import Sample
from genhmr_jax.data.synthetic.write import read_shards
from genhmr_jax.evaluate.metrics import mpjpe, pa_mpjpe
from genhmr_jax.people import People


def pick(people: People, sample: Sample) -> int | None:
    """The recovered person nearest to the sample's, by mean distance of visible keypoints; None if all are further than half its size."""
    seen = sample.keypoints[:, 2] > 0
    if not len(people) or not seen.any():
        return None
    extent = np.ptp(sample.keypoints[:, :2], axis=0).max()
    distance = np.linalg.norm(people.projected_keypoints[:, seen] - sample.keypoints[None, seen, :2], axis=-1).mean(1)
    best = int(np.argmin(distance))
    return best if distance[best] < extent / 2 else None


def rest_joints(recoverer: recover.Recoverer) -> np.ndarray:
    """Joints (24, 3) of the rest pose in camera coordinates."""
    import smpl_jax

    return np.asarray(smpl_jax.forward(recoverer.body, np.zeros(10, np.float32), np.zeros((24, 3), np.float32)).joints) * [1, -1, -1]


def evaluate(samples: list[Sample], recoverer: recover.Recoverer, options: recover.RecoverOptions, label: str) -> dict[str, float]:
    """Errors over all samples."""
    joints, pixels, fallback = [], [], rest_joints(recoverer)
    for sample in tqdm(samples, desc=label, unit="image"):
        people = recoverer.recover(sample.image, options=options)
        chosen = pick(people, sample)
        joints.append(fallback if chosen is None else people.joints[chosen])
        if chosen is not None:
            seen = sample.keypoints[:, 2] > 0
            pixels.append(np.linalg.norm(people.projected_keypoints[chosen, seen] - sample.keypoints[seen, :2], axis=-1).mean())
    truth, predicted = np.stack([s.joints for s in samples]), np.stack(joints)
    pa, plain = (1000 * np.asarray(f(predicted, truth)) for f in (pa_mpjpe, mpjpe))
    return {
        "images": len(samples),
        "found": len(pixels) / len(samples),
        "pa_mpjpe_mm": float(pa.mean()),
        "pa_mpjpe_median_mm": float(np.median(pa)),
        "mpjpe_mm": float(plain.mean()),
        "mpjpe_median_mm": float(np.median(plain)),
        "reprojection_px": float(np.mean(pixels)) if pixels else float("nan"),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure a model on rendered images.")
    parser.add_argument("--images", required=True, help="folder of shards")
    parser.add_argument("--checkpoint", help="model folder; default: the shipped one")
    parser.add_argument("--limit", type=int, help="only the first N images")
    parser.add_argument("--iterations", type=int, default=recover.RecoverOptions.iterations)
    parser.add_argument("--out", type=pathlib.Path, help="also write the figures to this JSON file")
    args = parser.parse_args()
    compilation_cache.enable()
    samples = list(read_shards(args.images))[: args.limit]
    recoverer = recover.load(args.checkpoint)
    rows = {}
    for label, steps in (("sampling alone", 0), ("with refinement", recover.RecoverOptions.refine_steps)):
        rows[label] = evaluate(
            samples, recoverer, recover.RecoverOptions(iterations=args.iterations, refine_steps=steps, max_people=3), label
        )
    print("| | " + " | ".join(rows["sampling alone"]) + " |\n" + "|---" * (len(rows["sampling alone"]) + 1) + "|")
    for label, row in rows.items():
        print(f"| {label} | " + " | ".join(f"{v:.4g}" for v in row.values()) + " |")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
