#!/usr/bin/env bash
# A TPU slice made of TPU VMs: one process on each host, found through the metadata server.
#
#   export TPU=genhmr ZONE=us-west4-a TYPE=v5litepod-16      # also PROJECT; SPOT=1 for spot capacity; VERSION to override the image
#   launch/tpu_vm.sh create
#   launch/tpu_vm.sh setup                                   # this commit and its packages, onto every host
#   launch/tpu_vm.sh run --config=configs/tokenizer/paper.py --workdir=gs://BUCKET/tokenizer --config.data.poses=poses.npz
#   launch/tpu_vm.sh logs                                    # of host 0, or HOST=3
#   launch/tpu_vm.sh kill                                    # saves, then stops; `run` with the same arguments goes on
#   launch/tpu_vm.sh delete
set -euo pipefail
cd "$(dirname "$0")/.."

: "${TPU:?set TPU to the name of the slice}" "${ZONE:?set ZONE, like us-west4-a}"
gcloud_tpu() { gcloud compute tpus tpu-vm "$@" --zone "$ZONE" ${PROJECT:+--project "$PROJECT"}; }
on_hosts() { gcloud_tpu ssh "$TPU" --worker="$1" --command "$2"; }

default_version() {
  case "$1" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  : "${TYPE:?set TYPE, like v5litepod-16}"
  gcloud_tpu create "$TPU" --accelerator-type="$TYPE" --version="${VERSION:-$(default_version "$TYPE")}" ${SPOT:+--spot}
}

setup() {
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  trap 'rm -f "$archive"' EXIT
  git archive --format=tar.gz --output="$archive" HEAD
  gcloud_tpu scp "$archive" "$TPU:genhmr.tar.gz" --worker=all
  # uv brings a Python of its own: that of the image is older than 3.11. gcsfs is for --workdir=gs://
  on_hosts all 'set -e
    rm -rf genhmr && mkdir genhmr && tar -xzf genhmr.tar.gz -C genhmr && cd genhmr
    command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
    export PATH="$HOME/.local/bin:$PATH"
    uv venv --quiet --python 3.12 .venv
    uv pip install --quiet --python .venv ".[data]" "jax[tpu]" gcsfs'
}

run() {
  local arguments
  case " $* " in *" --config="*) ;; *) echo "tpu_vm.sh run: --config=FILE is missing" >&2; exit 2 ;; esac
  case " $* " in *" --workdir="*) ;; *) echo "tpu_vm.sh run: --workdir=gs://... is missing" >&2; exit 2 ;; esac
  arguments=$(printf ' %q' "$@")
  # It goes on when the connection ends. A host that is still running one refuses a second.
  on_hosts all "set -e; cd genhmr
    if [ -f run.pid ] && kill -0 \$(cat run.pid) 2>/dev/null; then echo 'already running here: launch/tpu_vm.sh kill' >&2; exit 1; fi
    . launch/env/tpu.sh && . .venv/bin/activate
    nohup setsid python -m genhmr_jax.main$arguments >run.log 2>&1 </dev/null &
    echo \$! >run.pid"
}

logs() { on_hosts "${HOST:-0}" 'tail -n 200 -f genhmr/run.log'; }

# SIGTERM on every host: they agree on a step, save it and end with code 75.
stop() { on_hosts all 'kill -TERM $(cat genhmr/run.pid)'; }

delete() { gcloud_tpu delete "$TPU" --quiet; }

command=${1:-}
[ $# -gt 0 ] && shift
case "$command" in
  create | setup | run | logs | delete) "$command" "$@" ;;
  kill) stop ;;
  *) sed -n '2,10p' "$0" >&2; exit 2 ;;
esac
