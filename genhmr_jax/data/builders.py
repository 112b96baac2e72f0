"""Built datasets: records of a source as TensorFlow Datasets (array_record), without TensorFlow.

Each split of a source is a separate dataset, `DATA_DIR/NAME/SPLIT/VERSION`, so that it can be built
alone. Records keep the order of the release; the reader shuffles. Images stay the bytes of the
original file and are not decoded here.
"""

import contextlib
import errno
import fcntl
import functools
import io
import os
import shutil
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from genhmr_jax.data.sources import Record, Report, Source, find
from genhmr_jax.data.sources.records import Field, fields_of
from genhmr_jax.io.atomic import sync
from genhmr_jax.io.errors import InputError, shortened

VERSION = "1.0.0"  # of the schema in records.py
SKIPPED = "skipped.txt"
_SCRATCH = ".building-"  # the prefix of folders of unfinished builds
_LOCK = "lock"


def build(
    name: str,
    manual_dir: str | Path,
    data_dir: str | Path,
    split: str,
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> tuple[int, Report]:
    """Builds a split of a source.

    Args:
      name: of the source (see `genhmr data list`).
      manual_dir: folder of the official releases.
      data_dir: folder of the built datasets.
      split: of the source.
      skip_bad: list bad records in the report, and in skipped.txt beside the records, instead of
        stopping at the first.
      overwrite: build a split that exists again.

    Returns:
      the number of records, and the report (empty if the split existed).

    Raises:
      InputError: no such source or split, a part of the release is missing, or a record is bad. No
        records are written then.
    """
    source = find(name)
    source.check_split(split)
    report = source.report(skip_bad)
    folder = built_dir(data_dir, name, split)
    if overwrite or not _is_built(folder):
        records = functools.partial(source.records, manual_dir, split, report)
        _build(source, records, Path(data_dir), split, report)
    return len(open_built(data_dir, name, split)), report


def _build(
    source: Source,
    make_records: Callable[[], Iterator[Record]],
    data_dir: Path,
    split: str,
    report: Report,
) -> None:
    """Builds in a temporary folder of `data_dir`, then replaces the previous dataset."""
    # tfds prints messages about downloads, though there are none.
    with _scratch(data_dir) as folder, contextlib.redirect_stdout(io.StringIO()):
        form = {"file_format": "array_record"}
        builder = _builder_class(source.name)(data_dir=folder, config=split, **form)
        builder.make_records = make_records
        # Our own progress bar, over the records, ends its line before an error is printed.
        _tfds().disable_progress_bar()
        with _full_disk_as_usual(data_dir):
            builder.download_and_prepare(download_dir=Path(folder) / "downloads", **form)
        built = built_dir(folder, source.name, split)
        if report.listed:
            (built / SKIPPED).write_text(report.summary() + "\n")
        target = built_dir(data_dir, source.name, split)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            # Not deleted in its place: a dataset that is half deleted may look complete.
            target.rename(Path(folder) / "previous")
        sync(built)
        built.rename(target)


@contextlib.contextmanager
def _full_disk_as_usual(folder: Path) -> Iterator[None]:
    """Give tfds's own error of a full disk the number of the operating system's."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "Not enough disk space" in str(error):
            full = errno.ENOSPC
            raise OSError(full, os.strerror(full), str(folder)) from error
        raise


@contextlib.contextmanager
def _scratch(data_dir: Path) -> Iterator[str]:
    """A temporary folder in `data_dir`; those of killed builds are deleted.

    A build holds a lock on a file in its folder, which ends with its process.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        for folder in data_dir.glob(f"{_SCRATCH}*"):
            with contextlib.suppress(OSError), open(folder / _LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
        scratch = tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=data_dir)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise InputError(data_dir, problem, "choose another --data-dir") from error
    # The lock gets its name when it is held: another build must not find it free.
    with scratch as folder, tempfile.NamedTemporaryFile(dir=folder, delete=False) as lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
            Path(lock.name).rename(Path(folder) / _LOCK)
        yield folder


def built_dir(data_dir: str | Path, name: str, split: str) -> Path:
    """The folder of a built split."""
    return Path(data_dir) / name / split / VERSION


def open_built(data_dir: str | Path, name: str, split: str) -> "Built":
    """A built split, for random access.

    Raises:
      InputError: no such source, or it was not built there.
    """
    source = find(name)
    folder = built_dir(data_dir, name, split)
    if not _is_built(folder):
        remedy = f"build it: genhmr data build {name} --manual-dir DIR --data-dir {data_dir}"
        raise InputError(folder, "is not a built dataset", remedy)
    return Built(source, folder, split)


class Built:
    """The records of a built split by number, in the order of the release.

    Each has the fields of its schema (sources/records.py). Safe to read from several threads. A
    damaged file, which its checksums tell, is an InputError when one of its records is read.
    """

    def __init__(self, source: Source, folder: Path, split: str) -> None:
        self.source, self.split = source, split
        try:
            builder = _tfds().builder_from_directory(folder)
            self._info = builder.info.splits[split]
            self._data = builder.as_data_source(split)
        except Exception as error:  # array_record raises RuntimeError for anything
            raise _damaged(folder, error) from error
        self._fields = fields_of(source.kind)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.source.name} {self.split} has {len(self)} records")
        try:
            return self._decoded(self._data[int(index)])
        except Exception as error:  # array_record raises RuntimeError for anything
            raise _damaged(self._file_of(int(index)), error) from error

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), 256):  # one read of many is faster than many reads
            block = list(range(start, min(start + 256, len(self))))
            try:
                rows = list(map(self._decoded, self._data.__getitems__(block)))
            except Exception as error:
                raise _damaged(self._file_of(start), error) from error
            yield from rows

    def _file_of(self, index: int) -> Path:
        """The file that holds a record."""
        ends = np.cumsum(self._info.shard_lengths)
        return Path(self._info.filepaths[int(np.searchsorted(ends, index, "right"))])

    def _decoded(self, row: dict[str, Any]) -> Record:
        # Of zeros in a file array_record makes an empty record.
        if missing := [name for name in self._fields if row[name] is None]:
            raise ValueError(f"a record without {missing[0]}")
        return {name: _decoded(row[name], field) for name, field in self._fields.items()}


def _decoded(value: Any, field: Field) -> Any:
    """A stored value as NumPy array, str or bytes."""
    if field.dtype == "str":
        return value.decode()
    return value if field.dtype == "bytes" else np.asarray(value, field.dtype)


def _damaged(where: Path, error: Exception) -> InputError:
    problem = f"is damaged, or cannot be read ({shortened(error, 200)})"
    return InputError(where, problem, "build it again: genhmr data build NAME --overwrite")


def _is_built(folder: Path) -> bool:
    return (folder / "dataset_info.json").is_file()


def _features(source: Source) -> Any:
    """The schema of a source as tfds features."""
    features = _tfds().features
    numbers = {"f4": np.float32, "i4": np.int32}

    def feature(field: Field) -> Any:
        if field.dtype == "str":
            return features.Text()
        # A Tensor of strings holds any bytes; an Image feature would require an image in every
        # record, and decode it.
        return features.Tensor(shape=field.shape, dtype=numbers.get(field.dtype, np.str_))

    return features.FeaturesDict(
        {name: feature(field) for name, field in fields_of(source.kind).items()}
    )


@functools.cache
def _builder_class(source_name: str) -> type:
    """The GeneratorBasedBuilder of a source; its `make_records` is set before it builds."""
    tfds, source = _tfds(), find(source_name)

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = source.name
        VERSION = tfds.core.Version(VERSION)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=split) for split in source.splits]
        MANUAL_DOWNLOAD_INSTRUCTIONS = source.layout
        # Without it, tfds reads checksums with a package that it does not install.
        url_infos: dict = {}

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=source.layout,
                features=_features(source),
                citation=source.citation,
                license=source.licence,
                disable_shuffling=True,  # frames of a sequence stay in order
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {self.builder_config.name: self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, Record]]:
            title = f"{self.name} {self.builder_config.name}"
            how = {"desc": title, "unit": " records", "disable": None, "leave": False}
            with tqdm.tqdm(self.make_records(), **how) as bar:
                yield from enumerate(bar)

    return Builder


def _tfds() -> types.ModuleType:
    """tensorflow_datasets, imported late: machines that only run the model do not need it."""
    try:
        import array_record  # noqa: F401
        import tensorflow_datasets
    except ImportError as error:
        problem = f"need a package that is not installed ({error.name})"
        raise InputError("built datasets", problem, "pip install 'genhmr_jax[data]'") from error
    return tensorflow_datasets
