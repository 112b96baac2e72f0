"""`genhmr sweep`. JAX is imported only when the command runs."""

import argparse

from genhmr_jax.io.paths import path_flag

BACKENDS = ("local", "slurm", "gke", "xmanager")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    # 1. The sweep.
    file = "a sweep: configs/sweeps/tokens.py, or configs/sweeps/tokens.py:tiny"
    add("--sweep", required=True, type=path_flag, metavar="FILE:ARG", help=file)
    folder = "folder of its runs, table and plot; runs that are done there are not repeated"
    add("--out", required=True, type=path_flag, metavar="DIR", help=folder)
    many = {"action": "append", "default": []}
    override = (
        "an override for all points: data.poses=FILE (both stages), STAGE.steps=500 with the name "
        "of a stage (tokenizer, genhmr, mesh2d, posturehmr), evaluate.views=256"
    )
    add("--set", **many, metavar="KEY=VALUE", help=override)
    seeds = "train each point with N seeds; the table shows means (default: 1)"
    add("--seeds", type=int, default=1, metavar="N", help=seeds)
    model = {"default": "", "type": path_flag, "metavar": "DIR"}
    first = "a trained first stage (tokenizer, mesh2d) for all points; none is trained then"
    add("--first-stage", **model, help=first)
    trained = "evaluate this model of the second stage at all points; 'default' is the packaged one"
    add("--checkpoint", **model, help=trained)
    # 2. What to do.
    jobs = "number of runs at a time (default: 1 on this machine, all on a cluster)"
    add("--jobs", type=int, metavar="N", help=jobs)
    gpus = "GPUs to distribute over the runs: 0,1,2,3 with --jobs 4 gives one to each run"
    add("--devices", default="", metavar="LIST", help=gpus)
    add("--dry-run", action="store_true", help="only print the runs")
    add("--collect", action="store_true", help="only write the table and plot of finished runs")
    # 3. Clusters.
    backend = "run on this machine, or write jobs for a cluster into DIR (default: local)"
    add("--backend", choices=BACKENDS, default="local", help=backend)
    option = (
        "option of the cluster, may be repeated. slurm: an #SBATCH line, --option=--gpus=1; "
        "gke: topology=2x4; xmanager: a100=1"
    )
    add("--option", **many, metavar="TEXT", help=option)
    image = "gke, xmanager: the container image (launch/Dockerfile)"
    add("--image", default="", metavar="IMAGE", help=image)
    remote = "gke, xmanager: path of --out on the machines: /gcs/BUCKET/sweep"
    add("--remote-out", default="", metavar="DIR", help=remote)


def run(args: argparse.Namespace) -> int:
    """Run the sweep, or write its jobs; see evaluate.sweep.command.run."""
    from genhmr_jax.evaluate.sweep import command

    return command.run(args)
