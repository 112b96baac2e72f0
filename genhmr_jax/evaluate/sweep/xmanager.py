"""A sweep as an XManager launch script for Vertex AI: a work unit for each node, kind by kind."""

import argparse
import json
import pprint
import shlex

from genhmr_jax.evaluate.sweep.buckets import bucket_of, command_of, fetch_and_collect, stages
from genhmr_jax.evaluate.sweep.plan import Plan
from genhmr_jax.io.errors import InputError

TEMPLATE = '''\
"""Launches a sweep of genhmr_jax on Vertex AI. Written by `genhmr sweep --backend=xmanager`.

    xmanager launch {file}

Afterwards:

{after}"""

from absl import app
from xmanager import xm, xm_local

TITLE = {title}
IMAGE = {image}
REQUIREMENTS = {requirements}
# Name of a run -> arguments of python. A stage needs only the stages before it.
STAGES = {stages}


@xm.run_in_asyncio_loop
async def main(_):
    async with xm_local.create_experiment(experiment_title=TITLE) as experiment:
        container = xm.PythonContainer(
            base_image=IMAGE,
            docker_instructions=["WORKDIR /app"],
            entrypoint=xm.CommandList(['. launch/env/$ACCELERATOR.sh && exec python "$@"']),
        )
        package = xm.Packageable(
            executable_spec=container, executor_spec=xm_local.Vertex.Spec()
        )
        [executable] = experiment.package([package])
        for stage in STAGES:
            units = {{}}
            for name, arguments in stage.items():
                executor = xm_local.Vertex(requirements=xm.JobRequirements(**REQUIREMENTS))
                job = xm.Job(
                    executable=executable, executor=executor, args=arguments, name=name
                )
                units[name] = await experiment.add(job)
            for name, unit in units.items():
                try:
                    await unit.wait_until_complete()
                except xm.ExperimentUnitError as error:  # runs that need it fail too
                    print(f"{{name}} failed: {{error}}")


if __name__ == "__main__":
    app.run(main)
'''


def write(plan: Plan, args: argparse.Namespace, collect: list[str]) -> str:
    """Write OUT/xmanager_launch.py, and return the instructions for the user.

    Args:
      plan: nodes whose results exist on this machine are left out.
      args: `image`; `remote_out`, /gcs/BUCKET/FOLDER; `option`, KEY=VALUE arguments of
        xm.JobRequirements, such as a100=1.
      collect: arguments of python that write the table.

    Raises:
      InputError: no image, no bucket, or an option that is not KEY=VALUE.
    """
    bucket_of(args)
    requirements = {}
    for text in args.option:
        key, _, value = text.partition("=")
        if not key.isidentifier() or not value:
            remedy = "give KEY=VALUE as xm.JobRequirements takes it, like a100=1"
            raise InputError(f"--option {text}", "is not a resource", remedy)
        requirements[key] = int(value) if value.isdigit() else value
    groups = [{node.key: command_of(node) for node in nodes} for nodes in stages(plan)]
    file = plan.out / "xmanager_launch.py"
    plan.out.mkdir(parents=True, exist_ok=True)
    after = "".join(f"    {line}\n" for line in fetch_and_collect(plan, args, collect).splitlines())
    file.write_text(
        TEMPLATE.format(
            file=file,
            after=after.replace("\\", "\\\\"),
            title=json.dumps(f"genhmr sweep: {plan.sweep.axis}"),
            image=json.dumps(args.image),
            requirements=pprint.pformat(requirements),
            stages=pprint.pformat(groups, width=140, sort_dicts=False),
        )
    )
    start = f"xmanager launch {shlex.quote(str(file))}"
    return f"{sum(map(len, groups))} runs in {file}; start them with: {start}"
