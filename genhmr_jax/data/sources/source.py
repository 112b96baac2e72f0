"""A source of data: it finds and reads the files of a dataset and reports what is bad.

It turns the official release of a dataset on a disk into records (records.py): poses, or people in
images.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from genhmr_jax.data.sources.records import PersonRecord, PoseRecord
from genhmr_jax.io.errors import InputError

Record = PoseRecord | PersonRecord


@dataclasses.dataclass
class Report:
    """The bad records that a reader found.

    Without `skip_bad` the first bad record stops the reader with an InputError; with it, bad
    records are left out and listed.
    """

    skip_bad: bool = False
    dataset: str = ""
    layout: str = ""
    listed: list[str] = dataclasses.field(default_factory=list)

    def bad(self, where: object, problem: str, remedy: str) -> None:
        """Raises an InputError that names the dataset, or lists it if `skip_bad` is set."""
        error = InputError(f"{self.dataset}: {where}" if self.dataset else where, problem, remedy)
        if not self.skip_bad:
            raise error
        self.listed.append(str(error))

    @contextlib.contextmanager
    def skipping(self) -> Iterator[None]:
        """A block that reads one file or one record; its InputError is handled as by `bad`."""
        try:
            yield
        except MissingError:
            raise
        except InputError as error:
            self.bad(error.where, error.problem, error.remedy)

    def require(self, path: Path) -> Path:
        """The path, if it exists.

        Raises:
          MissingError: it does not exist; the text names the download and where to put it. It is
            never skipped, since nothing can be read without it.
        """
        if not path.exists():
            self.missing(path, "no such file or folder")
        return path

    def missing(self, where: object, problem: str) -> None:
        """Raises the MissingError of `require`."""
        where = f"{self.dataset}: {where}" if self.dataset else where
        raise MissingError(where, problem, self.layout or "download it first")

    def summary(self) -> str:
        """The skipped records, a line each."""
        if not self.listed:
            return "nothing was skipped"
        return f"{len(self.listed)} skipped:\n" + "\n".join(f"  {line}" for line in self.listed)


class MissingError(InputError):
    """A part of a release is missing."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A dataset and its reader.

    Attributes:
      name: in `genhmr data build` and of the built dataset.
      kind: "poses" or "people": the schema of its records (records.py); "hands": HandRecord of
        data.hands.releases.
      splits: names of its splits.
      layout: what to download, from where, and where to put it; shown when it is missing.
      licence: what the release allows, in a line.
      citation: the paper.
      read: (root, split, report) -> its records. `root` is `folder` in the manual directory.
      folder: the folder of the release in the manual directory.
      weights: published weights of its subsets (the first part of a record's `sequence`) in a
        mixture, if there are any.
    """

    name: str
    kind: str
    splits: tuple[str, ...]
    layout: str
    licence: str
    citation: str
    read: Callable[[Path, str, Report], Iterator[Record]]
    folder: str
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def report(self, skip_bad: bool = False) -> Report:
        """An empty report with this source's name and layout."""
        return Report(skip_bad, self.name, self.layout)

    def check_split(self, split: str) -> None:
        """Raises InputError if there is no such split."""
        if split not in self.splits:
            remedy = f"it has {', '.join(self.splits)}"
            raise InputError(self.name, f"has no split {split!r}", remedy)

    def records(self, manual_dir: str | Path, split: str, report: Report) -> Iterator[Record]:
        """The records of a split, in the order of the files.

        Args:
          manual_dir: the folder that holds the official releases.
          split: one of `splits`.
          report: of bad records.

        Raises:
          InputError: no such split, the release is missing, or a record is bad and `report` does
            not skip.
        """
        self.check_split(split)
        root = report.require(Path(manual_dir) / self.folder)
        count = 0
        for record in self.read(root, split, report):
            count += 1
            yield record
        if not count:
            skipped = ""
            if report.listed:
                skipped = f" ({len(report.listed)} skipped, first: {report.listed[0]})"
            report.missing(root, f"holds no readable record of split {split!r}{skipped}")
