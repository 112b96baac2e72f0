"""What cloud clusters share: the sweep's folder is in a bucket.

The bucket is mounted as /gcs/BUCKET on every machine. Vertex AI does this automatically.
"""

import argparse
import pathlib
import shlex

from genhmr_jax.evaluate.sweep.plan import Node, Plan
from genhmr_jax.io.errors import InputError


def bucket_of(args: argparse.Namespace) -> str:
    """The bucket of --remote-out.

    Raises:
      InputError: --remote-out is not /gcs/BUCKET/FOLDER, or there is no --image.
    """
    parts = pathlib.PurePosixPath(args.remote_out).parts
    if len(parts) < 4 or parts[:2] != ("/", "gcs"):
        where, problem = f"--remote-out {args.remote_out!r}", "names no folder of a mounted bucket"
        raise InputError(where, problem, "give --remote-out=/gcs/BUCKET/FOLDER")
    if not args.image:
        remedy = "build one with launch/Dockerfile and give its name"
        raise InputError("--image", "is missing", remedy)
    return parts[2]


def stages(plan: Plan) -> list[list[Node]]:
    """The nodes that are not done, by kind. Each list needs only nodes of the lists before it."""
    todo = [node for node in plan.nodes.values() if not node.done]
    found = [[node for node in todo if node.kind == kind] for kind in plan.kinds]
    return [nodes for nodes in found if nodes]


def command_of(node: Node) -> list[str]:
    """The arguments of python for a node.

    Trainings write their checkpoints to gs:// directly, because a mounted bucket cannot rename a
    folder atomically.
    """
    return [text.replace("--workdir=/gcs/", "--workdir=gs://", 1) for text in node.command]


def fetch_and_collect(plan: Plan, args: argparse.Namespace, collect: list[str]) -> str:
    """The shell commands that download the results and write the table."""
    source = shlex.quote(f"gs://{args.remote_out.removeprefix('/gcs/')}/runs")
    target = shlex.quote(str(plan.out / "runs"))
    large = "'.*/checkpoints/.*|.*/params.npz'"
    fetch = f"gcloud storage rsync --recursive --exclude={large} {source} {target}"
    return f"{fetch}\npython {shlex.join(collect)}\n"
