# shellcheck shell=bash
# Settings for TPUs; source it before `python -m genhmr_jax.main`. What is set already stays.
#
# Few, since libtpu's own defaults are right by now. Tried by compiling a scanned FSDP step and a data-parallel one ahead of time with
# libtpu 0.0.51, and left out:
#   --xla_tpu_enable_async_collective_fusion and its companions (_fuse_all_gather, _multiple_steps, --xla_tpu_overlap_compute_collective_tc,
#     --xla_enable_async_all_gather): on v5e the program is the same byte for byte without them; on v5p and v6e libtpu refuses them.
#   --xla_tpu_enable_data_parallel_all_reduce_opt, --xla_tpu_data_parallel_opt_different_sized_ops, --xla_enable_async_all_reduce,
#     --xla_tpu_enable_ag_backward_pipelining, --xla_tpu_enable_latency_hiding_scheduler: the same program on v5e.
#   --xla_tpu_scoped_vmem_limit_kib=98304 on v6e: 23 % more cycles by the compiler's own estimate, and two thirds more temporary memory.

flags=(
  # Several slices: a host that waits longer than 5 minutes for another (which compiles, or writes a model) would count as hung.
  --megascale_graph_hang_threshold=30m
)
export LIBTPU_INIT_ARGS="${flags[*]} ${LIBTPU_INIT_ARGS:-}"
unset flags

# A run that comes back on the same host does not compile its step again.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/genhmr_jax/train}"
