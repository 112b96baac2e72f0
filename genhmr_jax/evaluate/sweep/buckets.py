"""Clusters in a cloud: the sweep's folder is in a bucket, mounted as /gcs/BUCKET on every machine
(Vertex AI does so by itself)."""

import argparse
import pathlib
import shlex

from genhmr_jax.evaluate.sweep.plan import KINDS, Node, Plan
from genhmr_jax.io.errors import InputError


def bucket_of(args: argparse.Namespace) -> str:
    """The bucket of --remote-out.

    Raises:
      InputError: --remote-out is not /gcs/BUCKET/FOLDER, or there is no --image.
    """
    parts = pathlib.PurePosixPath(args.remote_out).parts
    if len(parts) < 4 or parts[:2] != ("/", "gcs"):
        raise InputError(
            f"--remote-out {args.remote_out!r}",
            "names no folder of a mounted bucket",
            "give --remote-out=/gcs/BUCKET/FOLDER",
        )
    if not args.image:
        raise InputError(
            "--image", "is missing", "build one with launch/Dockerfile and give its name"
        )
    return parts[2]


def stages(plan: Plan) -> list[list[Node]]:
    """The nodes that are not done, by kind: each list needs only those before it."""
    found = [[n for n in plan.nodes.values() if n.kind == kind and not n.done] for kind in KINDS]
    return [nodes for nodes in found if nodes]


def command_of(node: Node) -> list[str]:
    """Arguments of python. Trainings write their checkpoints to gs:// directly: a mounted bucket
    cannot rename folders at once."""
    return [text.replace("--workdir=/gcs/", "--workdir=gs://", 1) for text in node.command]


def fetch_and_collect(plan: Plan, args: argparse.Namespace, collect: list[str]) -> str:
    """The shell commands that bring the results here and write the table."""
    source = shlex.quote(f"gs://{args.remote_out.removeprefix('/gcs/')}/runs")
    kept = "'.*/checkpoints/.*|.*/params/.*'"
    return f"gcloud storage rsync --recursive --exclude={kept} {source} {shlex.quote(str(plan.out / 'runs'))}\npython {shlex.join(collect)}\n"
