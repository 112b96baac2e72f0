"""Tables on disk: appended rows, interrupted processes, and damaged or hostile files."""

import json

import numpy as np
import pytest

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.row_table import RowTable


def rows(first, count):
    """Columns of several types and shapes; the values tell the rows."""
    at = np.arange(first, first + count)
    return {
        "index": at.astype(np.int32),
        "time": at / 30,
        "pose": (at[:, None, None] + np.arange(6).reshape(2, 3)).astype(np.float32),
        "seen": at % 2 == 0,
    }


def check(table, count):
    found, wanted = table.read(), rows(0, count)
    assert len(table) == count and found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


@pytest.fixture
def table(tmp_path):
    made = RowTable(tmp_path / "table", {"of": ["a clip", 7]})
    made.append(rows(0, 3))
    made.append(rows(3, 2))
    return made


def test_rows_are_appended_and_read_again(table):
    check(table, 5)
    again = RowTable.open(table.path)
    check(again, 5)
    assert again.notes == {"of": ["a clip", 7]}
    again.notes["state"] = 4
    again.append(rows(5, 0))
    again.append(rows(5, 4))
    check(RowTable.open(table.path), 9)
    assert RowTable.open(table.path).notes["state"] == 4


def test_columns_are_read_only_maps(table):
    for value in table.read().values():
        assert isinstance(value, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            value[0] = 1


def test_an_empty_table(tmp_path):
    empty = RowTable(tmp_path / "made" / "table", {})
    assert len(empty) == 0 and empty.read() == {}
    empty.append(rows(0, 0))
    found = RowTable.open(empty.path).read()
    assert found["pose"].shape == (0, 2, 3) and found["seen"].dtype == bool
    empty.delete()
    with pytest.raises(FileNotFoundError):
        RowTable.open(empty.path)


def test_a_column_without_elements(tmp_path):
    """Its file is empty, and cannot be mapped."""
    table = RowTable(tmp_path / "table", {})
    table.append({"a": np.zeros((2, 0), np.uint8), "b": np.arange(2)})
    found = RowTable.open(tmp_path / "table").read()
    assert found["a"].shape == (2, 0) and found["a"].dtype == np.uint8
    assert found["b"].tolist() == [0, 1]


def test_an_interrupted_append_is_undone(table):
    """The process ends between two columns: some have rows, or parts of one, beyond the head."""
    for name, more in (("index", b"1234" * 2), ("pose", b"12345")):
        with open(table.path / f"{name}.rows", "ab") as file:
            file.write(more)
    again = RowTable.open(table.path)
    check(again, 5)
    again.append(rows(5, 1))
    check(again, 6)


def test_a_failed_append_in_one_process(table, monkeypatch):
    """A full disk: the rows that were written do not count, nor do they move the next ones."""
    real, opened = open, []

    def full(path, mode):
        opened.append(path)
        if len(opened) == 3:
            raise OSError(28, "No space left on device")
        return real(path, mode)

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OSError, match="No space"):
        table.append(rows(5, 4))
    monkeypatch.undo()
    assert len(table) == 5
    table.append(rows(5, 2))
    check(table, 7)
    check(RowTable.open(table.path), 7)


def test_rows_are_removed(table):
    table.truncate(7)
    check(table, 5)
    table.truncate(2)
    check(table, 2)
    table.append(rows(2, 4))
    check(RowTable.open(table.path), 6)


def test_other_columns_are_refused(table, tmp_path):
    wrong = rows(5, 2)
    for change in (
        {"pose": wrong["pose"][:, :1]},
        {"time": wrong["time"].astype(np.float32)},
        {"further": wrong["time"]},
        {"seen": wrong["seen"][:1]},
    ):
        with pytest.raises(ValueError, match="rows"):
            table.append(wrong | change)
    check(RowTable.open(table.path), 5)
    for name, value in (("../x", wrong["time"]), ("x", np.array([None])), ("x", np.array(["a"]))):
        empty = RowTable(tmp_path / "empty", {})
        with pytest.raises(ValueError, match="the (column|type)"):
            empty.append({name: value})
        assert [path.name for path in empty.path.iterdir()] == ["table.json"]


def test_damaged_tables(table):
    head = (table.path / "table.json").read_text()

    def damaged(content):
        (table.path / "table.json").write_bytes(content)
        with pytest.raises(InputError, match="is a damaged table"):
            RowTable.open(table.path)

    for content in (b"", head.encode()[:-9], b"\xff\xfe", b"[]", b'{"rows": 5}', b"[" * 100_000):
        damaged(content)
    for change in (
        {"rows": "many"},
        {"rows": -1},
        {"rows": 6},
        {"columns": {"pose": 3}},
        {"columns": {"pose": [[2, 3], "O"]}},
        {"columns": {"pose": [[2, 3], "no type"]}},
        {"columns": {"pose": [[-2, -3], "<f4"]}},
        {"columns": {"pose": [["a"], "<f4"]}},
        {"columns": [1]},
        {"notes": 1},
    ):
        damaged(json.dumps(json.loads(head) | change).encode())
    (table.path / "table.json").write_text(head)
    check(RowTable.open(table.path), 5)
    with open(table.path / "pose.rows", "r+b") as file:
        file.truncate(100)
    with pytest.raises(InputError, match="pose is shorter than 5 rows"):
        RowTable.open(table.path)
    (table.path / "pose.rows").unlink()
    with pytest.raises(InputError, match="is a damaged table"):
        RowTable.open(table.path)


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/b", "..", ""])
def test_names_that_lead_elsewhere(table, name):
    """A hostile head: the file that it names is neither read nor cut off."""
    outside = table.path.parent / "outside.rows"
    outside.write_bytes(b"precious")
    head = json.loads((table.path / "table.json").read_text())
    head["columns"][name] = [[], "|u1"]
    (table.path / "table.json").write_text(json.dumps(head | {"rows": 0}))
    with pytest.raises(InputError, match="is a damaged table"):
        RowTable.open(table.path)
    assert outside.read_bytes() == b"precious"


def test_a_new_table_replaces_tables_only(table):
    (table.path / ".genhmr-left-over.json").touch()
    assert len(RowTable(table.path, {})) == 0
    photos = table.path.parent / "people"
    photos.mkdir()
    (photos / "mine.jpg").touch()
    with pytest.raises(InputError, match="has files of something else"):
        RowTable(photos, {})
    assert (photos / "mine.jpg").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"rows": float("inf")}, {"rows": -1}, {"rows": 1 << 70}, {"rows": True},
        {"columns": {"a": [[2**32, 2**32], "<f4"]}}, {"columns": {"a": [[2.0], "<f4"]}},
        {"columns": {"a": [[1] * 100, "<f4"]}}, {"columns": {"a": [[2], "(f4,"]}},
    ],
)  # fmt: skip
def test_heads_that_lie_leave_the_rows(tmp_path, change):
    """A size that overflows to 0 must not cut the file of the rows to nothing."""
    table = RowTable(tmp_path / "t", {})
    table.append({"a": np.ones((3, 2), np.float32)})
    head = json.loads((tmp_path / "t" / "table.json").read_text())
    (tmp_path / "t" / "table.json").write_text(json.dumps(head | change))
    with pytest.raises(InputError, match="damaged table"):
        RowTable.open(tmp_path / "t")
    assert (tmp_path / "t" / "a.rows").stat().st_size == 24
