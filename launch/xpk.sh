#!/usr/bin/env bash
# A workload on a GKE cluster that xpk made (it becomes a JobSet with Kueue). The image is launch/Dockerfile's.
#
#   export CLUSTER=my-cluster ZONE=us-west4-a IMAGE=us-docker.pkg.dev/PROJECT/genhmr/genhmr_jax:tpu      # also PROJECT
#   export WORKLOAD=genhmr-paper TPU_TYPE=v5litepod-256 SLICES=1
#   launch/xpk.sh --config=configs/tokenizer/paper.py --workdir=gs://BUCKET/tokenizer --config.data.poses=poses.npz
set -euo pipefail

: "${CLUSTER:?}" "${ZONE:?}" "${IMAGE:?}" "${WORKLOAD:?}" "${TPU_TYPE:?}"
case " $* " in *" --config="*) ;; *) echo "xpk.sh: --config=FILE is missing" >&2; exit 2 ;; esac
case " $* " in *" --workdir="*) ;; *) echo "xpk.sh: --workdir=gs://... is missing" >&2; exit 2 ;; esac

# Exit code 75 is "saved, go on": xpk restarts on it only if told (it does so by itself on 42 and 127-255). 300 s is time to save.
exec xpk workload create \
  --cluster "$CLUSTER" --zone "$ZONE" ${PROJECT:+--project "$PROJECT"} \
  --workload "$WORKLOAD" --tpu-type="$TPU_TYPE" --num-slices="${SLICES:-1}" \
  --docker-image="$IMAGE" \
  --max-restarts=50 --restart-on-exit-codes=75 --termination-grace-period-seconds=300 \
  --command ". launch/env/tpu.sh && exec python -m genhmr_jax.main$(printf ' %q' "$@")"
