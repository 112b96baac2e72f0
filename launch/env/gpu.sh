# shellcheck shell=bash
# Settings for NVIDIA GPUs; source it before `python -m genhmr_jax.main`. What is set already stays (your XLA_FLAGS come last and win).
# jaxlib 0.10.2 and 0.12 accept every flag (an unknown one aborts the program); none has been tuned on the real thing: measure, then keep.

flags=(
  # Collectives run beside the computation instead of between: without it FSDP's all-gathers stand in the way of every layer.
  --xla_gpu_enable_latency_hiding_scheduler=true
  # The layers are one scanned block: these move a collective across the loop's boundary, so that the next block's weights arrive
  # while this one computes (all-gather: parameters; reduce-scatter and all-reduce: gradients).
  --xla_gpu_enable_pipelined_all_gather=true
  --xla_gpu_enable_pipelined_reduce_scatter=true
  --xla_gpu_enable_pipelined_all_reduce=true
  # Copies of loop-carried buffers go away when the loop has two of them in turn; the pipelining above needs that to pay off.
  --xla_gpu_enable_while_loop_double_buffering=true
  # Gradients travel in pieces of 128 MiB: large enough for full bandwidth, small enough to start before the backward pass ends.
  --xla_gpu_all_reduce_combine_threshold_bytes=134217728
  --xla_gpu_all_gather_combine_threshold_bytes=134217728
  --xla_gpu_reduce_scatter_combine_threshold_bytes=134217728
)
export XLA_FLAGS="${flags[*]} ${XLA_FLAGS:-}"
unset flags

# JAX takes 75 % of the memory at the start otherwise; the rest is for CUDA contexts and NCCL's buffers.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
# Only warnings: which network NCCL chose, and why it is slow.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
# A run that comes back on the same host does not compile its step again.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/genhmr_jax/train}"
