"""`genhmr sweep`. JAX is imported only when it runs."""

import argparse

from genhmr_jax.io.paths import path_flag

BACKENDS = ("local", "slurm", "gke", "xmanager")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them to the parser of the command."""
    add = parser.add_argument
    file = "a sweep: configs/sweeps/tokens.py, or configs/sweeps/tokens.py:tiny"
    add("--sweep", required=True, type=path_flag, metavar="FILE:ARG", help=file)
    folder = "folder of its runs, table and plot; what is done there already is not done again"
    add("--out", required=True, type=path_flag, metavar="DIR", help=folder)
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an override for every point: data.poses=FILE (both stages), tokenizer.steps=1000, "
        "genhmr.steps=500, evaluate.views=256",
    )
    add(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="train every point with N seeds; the table shows means (default: 1)",
    )
    trained = "a trained tokenizer for all points, in place of training one"
    add("--tokenizer", default="", type=path_flag, metavar="DIR", help=trained)
    given = "evaluate this stage-2 model at every point; 'default' is the packaged one"
    add("--checkpoint", default="", type=path_flag, metavar="DIR", help=given)
    add(
        "--jobs",
        type=int,
        metavar="N",
        help="how many runs at a time (default: here 1, on a cluster all)",
    )
    add(
        "--devices",
        default="",
        metavar="LIST",
        help="GPUs to deal out to the runs: 0,1,2,3 with --jobs 4 gives each run one",
    )
    add("--dry-run", action="store_true", help="print what would run, and stop")
    add("--collect", action="store_true", help="only write the table and the plot of what is done")
    add(
        "--backend",
        choices=BACKENDS,
        default="local",
        help="run here, or write jobs for a cluster into DIR (default: local)",
    )
    add(
        "--option",
        action="append",
        default=[],
        metavar="TEXT",
        help="of the cluster, may be repeated. slurm: an #SBATCH line, --option=--gpus=1; "
        "gke: topology=2x4; xmanager: a100=1",
    )
    add(
        "--image",
        default="",
        metavar="IMAGE",
        help="gke, xmanager: the container image (launch/Dockerfile)",
    )
    add(
        "--remote-out",
        default="",
        metavar="DIR",
        help="gke, xmanager: where the machines see --out: /gcs/BUCKET/sweep",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the sweep, or writes its jobs; see evaluate.sweep.command.run."""
    from genhmr_jax.evaluate.sweep import command

    return command.run(args)
