"""Makes one picture of the first images of a set of synthetic images, to look at.

python tools/contact_sheet.py --images runs/images/train --out docs/images/synthetic_samples.jpg
--labels
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from itertools import islice

import numpy as np
from PIL import Image, ImageDraw

from genhmr_jax.data.synthetic.write import read_shards
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.io.errors import InputError


def sheet(samples: Sequence, columns: int, side: int, labels: bool) -> Image.Image:
    """The samples' images in rows, each `side` px; with labels, visible keypoints are green and
    hidden ones red."""
    page = Image.new("RGB", (columns * side, -(-len(samples) // columns) * side))
    for number, sample in enumerate(samples):
        picture = Image.fromarray(sample.image).resize((side, side), Image.Resampling.LANCZOS)
        if labels:
            draw, scale = ImageDraw.Draw(picture), side / len(sample.image)
            for x, y, visible in sample.keypoints * [scale, scale, 1]:
                draw.ellipse(
                    (x - 1.5, y - 1.5, x + 1.5, y + 1.5),
                    fill=(0, 220, 0) if visible else (230, 0, 0),
                )
        page.paste(picture, (number % columns * side, number // columns * side))
    return page


def main(argv: Sequence[str] | None = None) -> int:
    """Command line. Returns 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(description="Make one picture of the first images of a set.")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of shards")
    parser.add_argument(
        "--out", required=True, type=pathlib.Path, metavar="FILE", help="a .jpg or .png"
    )
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--side", type=int, default=160, help="px of each image")
    parser.add_argument("--labels", action="store_true", help="draw the keypoints")
    args = parser.parse_args(argv)
    try:
        page = sheet(
            list(islice(read_shards(args.images), args.count)), args.columns, args.side, args.labels
        )
        with atomic_path(args.out) as temporary:
            page.save(
                temporary,
                "PNG" if args.out.suffix == ".png" else "JPEG",
                **({} if args.out.suffix == ".png" else {"quality": 88}),
            )
    except InputError as error:
        print(f"contact_sheet: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {np.prod(page.size):,} px")
    return 0


if __name__ == "__main__":
    sys.exit(main())
