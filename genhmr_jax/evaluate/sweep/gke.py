"""A sweep as GKE JobSets: one for each node, and a script that applies them kind by kind.

launch/jobset.yaml is a similar JobSet of one training.
"""

import argparse
import json
import shlex

from genhmr_jax.evaluate.sweep.buckets import bucket_of, command_of, fetch_and_collect, stages
from genhmr_jax.evaluate.sweep.plan import Node, Plan
from genhmr_jax.io.config_files import nearest
from genhmr_jax.io.errors import InputError

OPTIONS = {
    "accelerator": "tpu-v5-lite-podslice",
    "topology": "2x2",
    "hosts": "1",
    "chips": "4",
    "service_account": "genhmr",
}

# In a JobSet, one failing pod restarts all pods of the node. Exit code 75 means that a training was
# preempted and has saved.
TEMPLATE = """\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: 3
    rules:
      - name: preempted
        action: RestartJobSetAndIgnoreMaxRestarts
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: 1
      template:
        spec:
          parallelism: {hosts}
          completions: {hosts}
          completionMode: Indexed
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes: {{containerName: run, operator: In, values: [75]}}
              - action: FailJob
                onPodConditions: [{{type: DisruptionTarget, status: "True"}}]
          template:
            metadata:
              annotations: {{gke-gcsfuse/volumes: "true"}}
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 300
              serviceAccountName: {service_account}
              hostNetwork: true
              dnsPolicy: ClusterFirstWithHostNet
              nodeSelector:
                cloud.google.com/gke-tpu-accelerator: {accelerator}
                cloud.google.com/gke-tpu-topology: {topology}
              containers:
                - name: run
                  image: {image}
                  ports: [{{containerPort: 8471}}, {{containerPort: 8482}}]
                  command: [bash, -c, {command}]
                  resources: {{limits: {{google.com/tpu: {chips}}}}}
                  volumeMounts: [{{name: bucket, mountPath: {mount}}}]
              volumes:
                - name: bucket
                  csi:
                    driver: gcsfuse.csi.storage.gke.io
                    volumeAttributes: {{bucketName: {bucket}}}
"""


def write(plan: Plan, args: argparse.Namespace, collect: list[str]) -> str:
    """Write OUT/gke/NODE.yaml and apply.sh, and return the instructions for the user.

    Args:
      plan: nodes whose results exist on this machine are left out.
      args: `image`; `remote_out`, /gcs/BUCKET/FOLDER; `option`, KEY=VALUE for each of OPTIONS with
        another value than the default.
      collect: arguments of python that write the table.

    Raises:
      InputError: no image, no bucket, or an unknown option.
    """
    bucket = bucket_of(args)
    options = dict(OPTIONS)
    for text in args.option:
        key, _, value = text.partition("=")
        if key not in OPTIONS or not value:
            problem, remedy = "is not a setting of a GKE job", nearest(key, OPTIONS)
            raise InputError(f"--option {text}", problem, f"{remedy} (KEY=VALUE)")
        options[key] = value
    folder = plan.out / "gke"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.yaml"):
        old.unlink()
    groups = stages(plan)
    for node in (node for nodes in groups for node in nodes):
        (folder / f"{node.key}.yaml").write_text(_jobset(node, args.image, bucket, options))
    apply = folder / "apply.sh"
    apply.write_text(_apply(groups) + fetch_and_collect(plan, args, collect))
    apply.chmod(0o755)
    count, start = sum(map(len, groups)), f"bash {shlex.quote(str(apply))}"
    return f"{count} JobSets in {folder}; start them with: {start}"


def _jobset(node: Node, image: str, bucket: str, options: dict[str, str]) -> str:
    command = f". launch/env/$ACCELERATOR.sh && exec {shlex.join(['python', *command_of(node)])}"
    # Every JSON string is a YAML string, so JSON does the quoting. hosts and chips are numbers.
    texts = {"image": image, "command": command, "mount": f"/gcs/{bucket}", "bucket": bucket}
    values = {key: json.dumps(value) for key, value in (texts | options).items()}
    values |= {key: int(options[key]) for key in ("hosts", "chips")}
    return TEMPLATE.format(name=node.key, **values)


def _apply(groups: list[list[Node]]) -> str:
    lines = [
        "#!/usr/bin/env bash",
        "# Each kind of run waits for the end of the kinds before it. Failed runs are named; the",
        "# others continue.",
        "set -euo pipefail",
    ]
    lines += ['here="$(cd "$(dirname "$0")" && pwd)"', "wait_for() {", '  for name in "$@"; do']
    state = "kubectl get jobset \"$name\" -o jsonpath='{.status.terminalState}'"
    lines += [
        f'    until [ -n "$({state})" ]; do sleep 20; done',
        f'    echo "$name: $({state})"',
        "  done",
        "}",
    ]
    for nodes in groups:
        lines += [f'kubectl apply -f "$here/{node.key}.yaml"' for node in nodes]
        lines.append(f"wait_for {' '.join(node.key for node in nodes)}")
    return "\n".join(lines) + "\n"
