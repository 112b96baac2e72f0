"""`genhmr convert`: make a model folder from a PyTorch checkpoint, without PyTorch.

    genhmr convert vitpose-h.pth --out models/vitpose_h
    genhmr convert model.safetensors --out models/dinov2_b
    genhmr convert epoch=35-step=1000000.ckpt --out models/hmr2
    genhmr convert tokenhmr_model.ckpt --tokenizer tokenizer.pth --out models/tokenhmr
    genhmr convert hamer.ckpt --out models/hamer_vit

Other parts of a checkpoint are left out: the optimiser, the discriminator, and the arrays of SMPL
and MANO, whose licences forbid redistribution. Of HaMeR only the backbone is read.
"""

import argparse
import pathlib
import shutil

from genhmr_jax.io.atomic import sync
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_flag

# The terms of the weights, which are written to the model's config.json.
TERMS = {
    "vit": "weights of ViTPose or DINOv2 (both Apache-2.0) or of the checkpoint from which they "
    "were taken: see its authors' terms",
    "hamer": "backbone of HaMeR: MIT code, weights trained with MANO and on datasets of hands for "
    "research: see its authors' terms, those of the datasets and MANO's licence",
    "hmr2": "4D-Humans / HMR2.0: MIT code, weights trained with SMPL: see its authors' terms and "
    "SMPL's licence",
    "tokenhmr": "TokenHMR: non-commercial scientific research (MPI), weights trained with SMPL: "
    "see its authors' terms",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    published = ".ckpt, .pth or .safetensors, as it was published"
    parser.add_argument("checkpoint", type=path_flag, metavar="FILE", help=published)
    folder = "the model folder to make; must not exist"
    parser.add_argument("--out", required=True, type=path_flag, metavar="DIR", help=folder)
    tokenizer = "TokenHMR's tokenizer.pth: the .ckpt lacks the decoder"
    parser.add_argument("--tokenizer", default="", type=path_flag, metavar="FILE", help=tokenizer)
    datasets = "0 COCO, 1 AI Challenger, 2 MPII, 3 AP-10K, 4 APT-36K, 5 COCO-WholeBody"
    expert = f"the expert of a ViTPose++, by its dataset: {datasets} (default: 0)"
    parser.add_argument("--expert", type=int, default=0, metavar="N", help=expert)


def run(args: argparse.Namespace) -> int:
    """Convert, and print the numbers of loaded and unused tensors.

    Raises:
      InputError: see systems.convert.convert. Then nothing is written.
    """
    from genhmr_jax.io.model_folder import save_params
    from genhmr_jax.systems.convert import convert, sha256, table

    out = pathlib.Path(args.out)
    if out.exists():
        raise InputError(out, "exists already", "choose another folder, or delete it")
    kind, params, spec, report = convert(args.checkpoint, args.tokenizer, args.expert)
    files = [file for file in (args.checkpoint, args.tokenizer) if file]
    source = [{"file": pathlib.Path(file).name, "sha256": sha256(file)} for file in files]
    meta = {"kind": kind, "spec": spec, "source": source, "terms": TERMS[report["publisher"]]}
    # A half-written model must not have the name that the user gave.
    unfinished = out.with_name(f"{out.name}.unfinished")
    try:
        save_params(unfinished, {"genhmr": params}, meta)
        sync(unfinished)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(table(report))
    use = f"--config.init={out}" if kind == "vit" else f"genhmr recover PHOTO --checkpoint {out}"
    print(f"{out}: {kind}, {report['numbers']:,} numbers; use it with {use}")
    return 0
