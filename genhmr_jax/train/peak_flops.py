"""Peak FLOP/s of devices, for model FLOPs utilisation and ahead-of-time reports. Without JAX."""

# Dense bfloat16 FLOP/s of one device by a part of its device_kind, the more specific names first.
# TPU: "Peak compute per chip" of Google Cloud's documentation (v4, v5e, v5p, v6e); NVIDIA: data
# sheets, "BFLOAT16 Tensor Core" without sparsity (A100; H100 SXM, PCIe and NVL; H200 SXM and NVL).
# JAX calls v5e "TPU v5 lite", v5p "TPU v5" and v6e "TPU v6 lite".
PEAK_FLOPS = {
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v4 lite": None,
    "TPU v4": 275e12,
    " MIG ": None,  # a slice of a GPU
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 FLOP/s of a device; None where it is unknown (for example, of a CPU)."""
    kind = device_kind.lower()
    return next((peak for name, peak in PEAK_FLOPS.items() if name.lower() in kind), None)
