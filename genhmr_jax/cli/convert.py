"""`genhmr convert`: a PyTorch checkpoint of this field becomes a model folder of ours. No PyTorch
is needed.

    genhmr convert vitpose-h.pth --out models/vitpose_h
    genhmr convert model.safetensors --out models/dinov2_b
    genhmr convert epoch=35-step=1000000.ckpt --out models/hmr2
    genhmr convert tokenhmr_model.ckpt --tokenizer tokenizer.pth --out models/tokenhmr

What a checkpoint holds beside its networks is left out: the optimiser, the discriminator, and
SMPL's arrays, which no exporter may pass on.
"""

import argparse
import pathlib
import shutil

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_flag

# What the authors say of the weights; kept in the model's config.json.
TERMS = {
    "vit": "weights of ViTPose or DINOv2 (both Apache-2.0) or of the checkpoint that they were taken from: see its authors' terms",
    "hmr2": "4D-Humans / HMR2.0: MIT code, weights trained with SMPL: see its authors' terms and SMPL's licence",
    "tokenhmr": "TokenHMR: non-commercial scientific research (MPI), weights trained with SMPL: see its authors' terms",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    published = ".ckpt, .pth or .safetensors, as it was published"
    parser.add_argument("checkpoint", type=path_flag, metavar="FILE", help=published)
    folder = "the model folder to make; must not exist"
    parser.add_argument("--out", required=True, type=path_flag, metavar="DIR", help=folder)
    no_decoder = "TokenHMR's tokenizer.pth: its decoder is not in the .ckpt"
    parser.add_argument("--tokenizer", default="", type=path_flag, metavar="FILE", help=no_decoder)
    datasets = "0 COCO, 1 AI Challenger, 2 MPII, 3 AP-10K, 4 APT-36K, 5 COCO-WholeBody"
    parser.add_argument(
        "--expert",
        type=int,
        default=0,
        metavar="N",
        help=f"of a ViTPose++, whose dataset: {datasets} (default: 0)",
    )


def run(args: argparse.Namespace) -> int:
    """Converts, prints what was loaded and what was not. Raises InputError; then nothing is
    written."""
    from genhmr_jax.io.model_folder import save_params
    from genhmr_jax.systems.convert import convert, sha256, table

    out = pathlib.Path(args.out)
    if out.exists():
        raise InputError(out, "exists already", "choose another folder, or delete it")
    kind, params, spec, report = convert(args.checkpoint, args.tokenizer, args.expert)
    source = [
        {"file": pathlib.Path(f).name, "sha256": sha256(f)}
        for f in (args.checkpoint, args.tokenizer)
        if f
    ]
    begun = out.with_name(
        f"{out.name}.begun"
    )  # a half-written model never has the name that was asked for
    try:
        save_params(
            begun,
            {"genhmr": params},
            {"kind": kind, "spec": spec, "source": source, "terms": TERMS[kind]},
        )
        begun.rename(out)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    print(table(report))
    use = f"--config.init={out}" if kind == "vit" else f"genhmr recover PHOTO --checkpoint {out}"
    print(f"{out}: {kind}, {report['numbers']:,} numbers; use it by {use}")
    return 0
