"""Published results with their reliability, and the tables that compare them with ours."""

import dataclasses
from collections.abc import Mapping
from typing import Any

OWN = "the authors' own table"
SECOND = "secondary source"
NOTES = "third-party reading notes of the paper, unverified"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of a published table, mm; None where the table has no number.

    Attributes:
      datasets: keys of datasets.DATASETS.
      protocols: those of our protocols that correspond to the published one.
      grade: the reliability of the row: OWN, SECOND or NOTES.
    """

    method: str
    datasets: tuple[str, ...]
    protocols: tuple[str, ...]
    mpjpe_mm: float
    pa_mpjpe_mm: float
    mve_mm: float | None
    grade: str


_3DPW = ("3dpw", "3dpw-hmr2")
_EMDB1 = ("emdb1", "emdb-hmr2")
_H36M = ("h36m-p2", "h36m-p2-hmr2")
_WITHOUT = "TokenHMR, without BEDLAM"
_HMR2 = ("hmr2", "hmr2-keypoints")

PUBLISHED = (
    Published("HMR2.0a", _3DPW, _HMR2, 69.8, 44.4, 82.2, SECOND),
    Published("TokenHMR, paper model", _3DPW, _HMR2, 70.9, 44.8, 84.3, OWN),
    Published("TokenHMR, release", _3DPW, _HMR2, 72.0, 45.5, 84.8, OWN),
    Published(_WITHOUT, _3DPW, _HMR2, 75.8, 47.5, 86.5, NOTES),
    Published("GenHMR", _3DPW, _HMR2, 54.7, 32.6, 67.5, NOTES),
    Published("PARE", _3DPW, ("spin",), 82.0, 50.9, 97.9, SECOND),
    Published("PARE, trained on 3DPW", _3DPW, ("spin",), 74.5, 46.5, 88.6, SECOND),
    Published("HMR2.0a", _EMDB1, ("emdb",), 97.8, 61.5, 120.0, SECOND),
    Published("TokenHMR, paper model", _EMDB1, ("emdb",), 89.5, 55.6, 108.5, OWN),
    Published("TokenHMR, release", _EMDB1, ("emdb",), 91.9, 56.4, 110.0, OWN),
    Published(_WITHOUT, _EMDB1, ("emdb",), 98.1, 66.1, 116.2, NOTES),
    Published("GenHMR", _EMDB1, ("emdb",), 68.5, 38.2, 76.4, NOTES),
    Published("HMR2.0", _H36M, ("hmr2-keypoints",), 44.8, 33.6, None, SECOND),
    Published(_WITHOUT, _H36M, ("hmr2-keypoints",), 48.4, 36.3, None, NOTES),
    Published("GenHMR", _H36M, ("hmr2-keypoints",), 33.5, 22.4, None, NOTES),
    Published("GenHMR, on a leaderboard", _H36M, ("hmr2-keypoints",), 41.2, 29.8, None, SECOND),
)
"""BioPose has no row: none of its numbers could be confirmed."""

HEADS = {
    "mpjpe_mm": "MPJPE, mm",
    "pa_mpjpe_mm": "PA-MPJPE, mm",
    "mve_mm": "MVE, mm",
    "pa_mve_mm": "PA-MVE, mm",
    "mpjae_deg": "MPJAE, deg",
    "pa_mpjae_deg": "PA-MPJAE, deg",
    "pck150": "PCK, %",
    "auc": "AUC, %",
    "accel_mm": "accel, mm/frame²",
    "jitter": "jitter, 10 m/s³",
}
"""Measures in the order of their columns."""


def published(dataset: str, protocol: str) -> list[Published]:
    """The rows to compare with results on this dataset under this protocol."""
    return [row for row in PUBLISHED if dataset in row.datasets and protocol in row.protocols]


def table(
    dataset: str, protocol: str, figures: Mapping[str, Any], seconds: Mapping[str, float]
) -> str:
    """A Markdown table of our settings, then of the published rows with their grades.

    Args:
      dataset: a key of datasets.DATASETS.
      protocol: the name of a protocol.
      figures: the result of runner.evaluate for this protocol.
      seconds: label of a setting -> seconds for each person.
    """
    columns = [name for name in HEADS if any(name in row for row in figures["results"].values())]
    heads = ["", *(HEADS[name] for name in columns), "ms a person", "source"]
    lines = [line(*heads), line(*["---"] * len(heads))]
    number = lambda value: "" if value is None else f"{value:.1f}"
    for label, row in figures["results"].items():
        cells = [number(row.get(name)) for name in columns]
        lines.append(line(label, *cells, f"{1000 * seconds[label]:.0f}", "measured here"))
    for row in published(dataset, protocol):
        cells = [number(getattr(row, name, None)) for name in columns]
        lines.append(line(row.method, *cells, "", row.grade))
    return "\n".join(lines)


def line(*cells: object) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"
