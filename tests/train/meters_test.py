"""Throughput, utilisation and memory, by numbers worked out by hand."""

import types

import pytest

from genhmr_jax.train.meters import Meter
from genhmr_jax.train.peak_flops import peak_flops


class Clock:
    """Time that passes when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def device(kind: str, in_use: int | None = None, peak: int = 0):
    stats = None if in_use is None else {"bytes_in_use": in_use, "peak_bytes_in_use": peak}
    return types.SimpleNamespace(device_kind=kind, memory_stats=lambda: stats)


def run(meter: Meter, clock: Clock, steps: int, seconds: float) -> None:
    for _ in range(steps):
        clock.now += seconds
        meter.step()


def test_rates_by_hand():
    clock = Clock()
    # 197e12 FLOP/s x 4 chips; 10 steps of 0.5 s; 78.8e12 FLOPs a step -> 157.6e12 FLOP/s of 788e12.
    meter = Meter(
        256,
        78.8e12,
        4,
        [device("TPU v5 lite", 3 * 2**30, 5 * 2**30), device("TPU v5 lite", 2 * 2**30, 6 * 2**30)],
        clock,
    )
    run(meter, clock, 1, 40.0)  # compiles
    run(meter, clock, 10, 0.5)
    rates = meter.rates()
    assert rates.pop("host_peak_gib") > 0.01
    assert rates == pytest.approx(
        {
            "samples_per_s": 512.0,
            "step_ms": 500.0,
            "mfu": 0.2,
            "device_gib": 3.0,
            "device_peak_gib": 6.0,
        }
    )
    run(meter, clock, 4, 0.25)
    assert meter.rates()["step_ms"] == pytest.approx(250.0)  # since the last call alone


def test_evaluation_does_not_count():
    clock = Clock()
    meter = Meter(10, 1.0, 1, [device("cpu")], clock)
    run(meter, clock, 3, 1.0)
    with meter.paused():
        clock.now += 1000.0
    run(meter, clock, 2, 1.0)
    assert meter.rates()["samples_per_s"] == pytest.approx(10.0)
    with meter.paused():  # after the rates were told, before the next step
        clock.now += 1000.0
    run(meter, clock, 2, 2.0)
    assert meter.rates()["step_ms"] == pytest.approx(2000.0)


def test_what_is_not_known_is_not_told():
    clock = Clock()
    meter = Meter(10, 1e12, 1, [device("cpu")], clock)
    run(meter, clock, 1, 5.0)
    assert set(meter.rates()) == {"host_peak_gib"}  # nothing but compilation so far
    run(meter, clock, 1, 5.0)
    assert set(meter.rates()) == {"samples_per_s", "step_ms", "host_peak_gib"}


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("TPU v4", 275e12),
        ("TPU v4 lite", None),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("cpu", None),
    ],
)
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak
