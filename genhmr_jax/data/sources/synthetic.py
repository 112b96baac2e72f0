"""Synthetic people: shards of images with exact labels, made by data/synthetic/write.py."""

from collections.abc import Iterator
from pathlib import Path

from genhmr_jax.data.sources.records import PersonRecord
from genhmr_jax.data.sources.source import Report, Source


def _read(root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
    # Imported late: these modules import sources.records, and so the whole package of sources.
    from genhmr_jax.data.synthetic.rendered import record_of
    from genhmr_jax.data.synthetic.write import read_encoded

    folder = report.require(root / split)
    with report.skipping():
        for number, encoded in enumerate(read_encoded(folder)):
            record = None
            with report.skipping():
                record = record_of(encoded, f"synthetic/{split}", number)
            if record is not None:
                yield record


SOURCES = (
    Source(
        name="synthetic",
        kind="people",
        splits=("train", "val"),
        folder="synthetic",
        layout=(
            "Rendered people: python -m genhmr_jax.data.synthetic.write --out "
            "MANUAL_DIR/synthetic --split train --count 10000 --poses POSES.npz (and --split "
            "val); docs/data.md says what a pose corpus is."
        ),
        licence="yours: free body (CC0), your poses and backgrounds",
        citation="this package",
        read=_read,
    ),
)
