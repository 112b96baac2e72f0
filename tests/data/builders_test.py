"""Built datasets, pose corpora, and the commands of docs/data.md, on tiny releases in the official
layouts."""

import concurrent.futures
import re
import shlex
import shutil
import sys

import numpy as np
import pytest

from genhmr_jax.cli import main
from genhmr_jax.data import builders, corpus, mixtures, poses
from genhmr_jax.data.sources import SOURCES, MissingError, find, records
from genhmr_jax.data.synthetic.write import write_split
from genhmr_jax.evaluate.datasets import DATASETS
from genhmr_jax.io.errors import InputError
from support import people_fixtures, pose_fixtures
from support.paths import ROOT

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")
DOCS = ROOT / "docs" / "data.md"


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manual")
    for name in pose_fixtures.NAMES:
        pose_fixtures.write(name, folder)
    return folder


@pytest.fixture(scope="module")
def built_poses(manual, tmp_path_factory):
    """Every pose source, train and val, built by the command."""
    folder = tmp_path_factory.mktemp("data")
    assert (
        main.main(
            [
                "data",
                "build",
                *pose_fixtures.NAMES,
                "--manual-dir",
                str(manual),
                "--data-dir",
                str(folder),
            ]
        )
        == 0
    )
    return folder


def read(name, manual_dir, split):
    return list(find(name).records(manual_dir, split, find(name).report()))


def assert_same(found, wanted, kind):
    for name, field in records.fields_of(kind).items():
        if field.dtype in ("str", "bytes"):
            assert found[name] == wanted[name] and type(found[name]) is type(wanted[name]), name
        else:
            assert found[name].dtype == np.dtype(field.dtype), name
            np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("name", pose_fixtures.NAMES)
def test_built_poses_are_the_records_in_their_order(built_poses, manual, name):
    for split in find(name).splits[:2]:
        built, wanted = builders.open_built(built_poses, name, split), read(name, manual, split)
        assert len(built) == len(wanted)
        for found, record in zip(built, wanted, strict=True):
            assert_same(found, record, "poses")
        assert_same(built[len(built) - 1], wanted[-1], "poses")


def test_built_people_keep_their_images(tmp_path):
    people_fixtures.write("threedpw", tmp_path / "manual")
    count, report = builders.build("threedpw", tmp_path / "manual", tmp_path / "data", "test")
    wanted = read("threedpw", tmp_path / "manual", "test")
    built = builders.open_built(tmp_path / "data", "threedpw", "test")
    assert count == len(built) == len(wanted) > 1 and not report.listed
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # random access, from several threads
        numbers = [3 % count, 0, count - 1] * 5
        for number, record in zip(numbers, pool.map(built.__getitem__, numbers), strict=True):
            assert_same(record, wanted[number], "people")
            assert record["image"][:2] == b"\xff\xd8"
    for number in (count, -1):
        with pytest.raises(IndexError, match=f"has {count} records"):
            built[number]
    assert "tensorflow" not in sys.modules


def test_built_twice_is_left_alone_unless_told(manual, tmp_path):
    build = lambda **how: builders.build("moyo", manual, tmp_path, "train", **how)[0]
    count = build()
    info = builders.built_dir(tmp_path, "moyo", "train") / "dataset_info.json"
    written = info.stat().st_mtime_ns
    assert build() == count and info.stat().st_mtime_ns == written
    assert build(overwrite=True) == count and info.stat().st_mtime_ns > written
    with pytest.raises(MissingError):
        builders.build("moyo", tmp_path, tmp_path, "train", overwrite=True)
    assert build() == count  # what could not be built again is still there
    assert [path.name for path in tmp_path.iterdir()] == ["moyo"]


def test_a_full_disk_is_one_line(manual, tmp_path, monkeypatch, capsys):
    """tfds looks for room before it writes, and raises an error of its own."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=0))
    words = ["--manual-dir", str(manual), "--data-dir", str(tmp_path / "data")]
    assert main.main(["data", "build", "moyo", *words]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"genhmr: .*/data: .*No space left on device.*", lines[-1]), lines
    assert not any("Traceback" in line for line in lines)


def test_bad_records_stop_or_are_listed(tmp_path, capsys):
    pose_fixtures.write("amass", tmp_path / "manual")
    bad = tmp_path / "manual/amass/CMU/01/01_01_poses.npz"
    bad.write_bytes(bad.read_bytes()[:1000])
    flags = [
        "--manual-dir",
        str(tmp_path / "manual"),
        "--data-dir",
        str(tmp_path / "data"),
        "--split",
        "train",
    ]
    assert main.main(["data", "build", "amass", *flags]) == 1
    assert re.search(
        r"^genhmr: amass: \S*01_01_poses.npz: is not a whole npz",
        capsys.readouterr().err,
        re.MULTILINE,
    )
    with pytest.raises(
        InputError, match="is not a built dataset; build it: genhmr data build amass"
    ):
        builders.open_built(tmp_path / "data", "amass", "train")
    assert not list((tmp_path / "data").iterdir())  # nothing half-built stays
    assert main.main(["data", "build", "amass", *flags, "--skip-bad"]) == 0
    assert "1 skipped:\n  amass: " in capsys.readouterr().out
    skipped = builders.built_dir(tmp_path / "data", "amass", "train") / "skipped.txt"
    assert "01_01_poses.npz: is not a whole npz" in skipped.read_text()
    assert len(builders.open_built(tmp_path / "data", "amass", "train")) == len(
        read_good(tmp_path / "manual")
    )


def read_good(manual_dir):
    return list(find("amass").records(manual_dir, "train", find("amass").report(skip_bad=True)))


@pytest.mark.parametrize("name", ["amass", "threedpw"])
def test_what_is_missing_is_told(tmp_path, capsys, name):
    flags = ["--manual-dir", str(tmp_path), "--data-dir", str(tmp_path / "data")]
    assert main.main(["data", "build", name, *flags, "--skip-bad"]) == 1
    assert " ".join(find(name).layout.split()) in capsys.readouterr().err
    with pytest.raises(MissingError):
        builders.build(name, tmp_path, tmp_path / "data", "train")


def test_a_split_that_is_not_there_does_not_stop_the_others(tmp_path, capsys):
    pose_fixtures.write("amass", tmp_path)
    for name in ("HumanEva", "SSM_synced"):
        (tmp_path / "amass" / name).rename(tmp_path / name)
    assert (
        main.main(
            [
                "data",
                "build",
                "amass",
                "--manual-dir",
                str(tmp_path),
                "--data-dir",
                str(tmp_path / "data"),
            ]
        )
        == 0
    )
    output = capsys.readouterr()
    assert "amass train: " in output.out and output.err.count("not built: amass: ") == 2


@pytest.mark.parametrize(
    "words, message",
    [(["build", "amas"], "did you mean amass"), (["list", "emd"], "did you mean emdb")],
)
def test_unknown_names(words, message, capsys):
    flags = ["--manual-dir", "x", "--data-dir", "y"] if words[0] == "build" else []
    assert main.main(["data", *words, *flags]) == 1
    assert message in capsys.readouterr().err


def test_list(capsys):
    assert main.main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", text, re.MULTILINE) for name in SOURCES)
    assert main.main(["data", "list", "amass"]) == 0
    text = capsys.readouterr().out
    assert find("amass").layout in text and find("amass").licence in text


def corpus_of(data_dir, source, out):
    assert (
        main.main(
            ["data", "poses", "--data-dir", str(data_dir), "--source", source, "--out", str(out)]
        )
        == 0
    )
    with np.load(out) as data:
        return dict(data), poses.load_corpus(out, "train"), poses.load_corpus(out, "val")


def test_corpus_with_published_weights(built_poses, manual, tmp_path, capsys):
    arrays, train, val = corpus_of(built_poses, "amass,moyo", tmp_path / "corpus.npz")
    wanted = [
        record
        for name in ("amass", "moyo")
        for split in ("train", "val")
        for record in read(name, manual, split)
    ]
    np.testing.assert_array_equal(arrays["poses"], np.stack([record["pose"] for record in wanted]))
    assert "frame" not in arrays, "the clips of AMASS have different rates"
    assert [arrays["seq_name"][i] for i in arrays["seq_id"]] == [
        record["sequence"] for record in wanted
    ]
    assert (
        len(val.poses) == (arrays["split"] == 1).sum()
        and len(train.poses) == (arrays["split"] == 0).sum()
    )
    np.testing.assert_allclose(val.weights, 1 / len(val.poses))
    subsets = np.array(
        [name.split("/")[0] for name in arrays["seq_name"][arrays["seq_id"][arrays["split"] == 0]]]
    )
    share = {name: train.weights[subsets == name].sum() for name in set(subsets)}
    # CMU .12, BMLrub .11, MOYO .16, and GRAB, which no paper weighs, as the smallest: .03.
    total = 0.12 + 0.11 + 0.16 + 0.03
    for name, weight in {"CMU": 0.12, "BMLrub": 0.11, "MOYO": 0.16, "GRAB": 0.03}.items():
        np.testing.assert_allclose(share[name], weight / total, rtol=1e-5)
    assert "GRAB 0.03 (no published weight)" in capsys.readouterr().out
    drawn = np.bincount(train.draw(np.arange(40000), seed=0), minlength=len(train.poses))
    np.testing.assert_allclose(drawn[subsets == "MOYO"].sum() / 40000, 0.16 / total, atol=0.01)


def test_corpus_with_given_weights(built_poses, tmp_path):
    arrays, train, _ = corpus_of(built_poses, "cmu_asf=3,aist=1", tmp_path / "corpus.npz")
    aist = np.char.startswith(arrays["seq_name"][arrays["seq_id"][arrays["split"] == 0]], "AIST")
    np.testing.assert_allclose(train.weights[aist].sum(), 0.25, rtol=1e-5)
    assert arrays["mocap_framerate"] == 120  # AIST++ has 60
    assert (arrays["frame"][arrays["split"] == 0][aist] % 2 == 0).all()


def test_corpus_of_one_source_without_weights_balances_clips(built_poses, tmp_path):
    arrays, train, _ = corpus_of(built_poses, "cmu_bvh", tmp_path / "corpus.npz")
    assert "weight" not in arrays
    np.testing.assert_allclose(train.weights.sum(), 1)
    assert arrays["mocap_framerate"] == 120 and arrays["frame"].shape == arrays["seq_id"].shape
    assert all(name.startswith("CMU/") for name in arrays["seq_subject"])
    assert len(arrays["seq_subject"]) == len(arrays["seq_name"])


@pytest.mark.parametrize(
    "source, out, message",
    [
        ("cmu_asf,amass", "a.npz", "no paper gives weights for cmu_asf"),
        ("amass,amass", "a.npz", "names amass twice"),
        ("amass=-1", "a.npz", "the weight of amass is '-1'"),
        ("amass=much", "a.npz", "the weight of amass is 'much'"),
        ("threedpw", "a.npz", "people in images, not of poses"),
        ("amass", "a.txt", "is not an .npz"),
    ],
)
def test_bad_corpora(built_poses, tmp_path, source, out, message):
    with pytest.raises(InputError, match=message):
        corpus.write_corpus(built_poses, corpus.parse_weights(source), tmp_path / out)
    with pytest.raises(InputError, match="is not a built dataset"):
        corpus.write_corpus(tmp_path, {"amass": None}, tmp_path / "a.npz")


def test_bad_weights_of_a_corpus_are_told(tmp_path):
    arrays = {"poses": np.zeros((4, 72)), "split": np.zeros(4), "seq_id": np.arange(4)}
    for weight in ([-1, 1, 1, 1], [np.nan, 1, 1, 1], [0, 0, 0, 0]):
        np.savez(tmp_path / "a.npz", **arrays, weight=np.array(weight, np.float32))
        with pytest.raises(InputError, match="weight has numbers that are not probabilities"):
            poses.load_corpus(tmp_path / "a.npz", "train")


def documented(start):
    """The commands of docs/data.md that begin so, in their order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(start)]


def flags_of(words, flag):
    return [word.split("=", 1)[1] for word in words if word.startswith(f"--{flag}=")]


def test_the_commands_of_the_docs(manual, tmp_path, monkeypatch, capsys):
    """docs/data.md from download to training, in a folder with a release of every dataset: its
    `genhmr data` commands run as they stand there, and its training and evaluation commands find
    what those have made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "downloads").mkdir()
    for release in manual.iterdir():
        (tmp_path / "downloads" / release.name).symlink_to(release)
    for name in people_fixtures.WRITERS:
        people_fixtures.write(name, tmp_path / "downloads")
    for split in ("train", "val"):
        write_split(tmp_path / "downloads" / "synthetic", split, 2, "made-up", size=64, body="lite")
    commands = documented("genhmr data ")
    assert set(SOURCES) <= {
        word for words in commands if words[2] == "build" for word in words[3:]
    }  # every dataset has its walk
    for words in commands:
        assert main.main(words[1:]) == 0, (words, capsys.readouterr().err)
    training, evaluation = documented("python -m genhmr_jax.main "), documented("genhmr eval ")
    assert len(training) >= 6 and len(evaluation) >= 6
    for words in training:
        (file,) = flags_of(words, "config.data.poses")
        assert all(len(poses.load_corpus(file, split).poses) for split in ("train", "val"))
        for folder, mixture in zip(
            flags_of(words, "config.data.people"),
            flags_of(words, "config.data.mixture"),
            strict=True,
        ):
            assert all(len(part.records) for part in mixtures.open_mixture(folder, mixture))
        for text in flags_of(words, "config.data.people_val"):
            assert len(builders.open_built("data", *text.split(":")))
    for words in evaluation:
        (name,), (folder,) = flags_of(words, "dataset"), flags_of(words, "data-dir")
        assert len(builders.open_built(folder, DATASETS[name].source, DATASETS[name].split))


def test_training_reads_a_built_corpus(built_poses, tokenizer_config, tmp_path):
    """The batches of the tokenizer's training, of the poses of all pose sources."""
    from genhmr_jax.systems import registry

    _, corpus_poses, _ = corpus_of(
        built_poses, "amass,moyo,cmu_asf=0.1,cmu_bvh=0.1,aist=0.1", tmp_path / "poses.npz"
    )
    config = tokenizer_config.copy_and_resolve_references()
    config.data.poses = str(tmp_path / "poses.npz")
    (source,) = registry.make_task(config).sources().values()
    batch = source.load(np.arange(source.size)).pose
    known = {pose.tobytes() for pose in corpus_poses.poses}
    assert batch.shape == (source.size, 72) and all(pose.tobytes() in known for pose in batch)


def test_a_damaged_file_is_named(built_poses, tmp_path):
    """It was a RuntimeError of array_record without the name of the file."""
    name, split = pose_fixtures.NAMES[0], "train"
    folder = tmp_path / name / split
    shutil.copytree(built_poses / name / split, folder)
    (file,) = folder.rglob("*array_record*")
    content = file.read_bytes()
    count = len(builders.open_built(tmp_path, name, split))
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    zeros = content[: middle // 2] + bytes(middle) + content[middle // 2 + middle :]
    for damaged in (flipped, zeros, content[:middle], b""):
        file.write_bytes(damaged)
        for read in (lambda built: [built[i] for i in range(count)], list):
            with pytest.raises(InputError, match="is damaged, or cannot be read") as error:
                read(builders.open_built(tmp_path, name, split))
            assert str(folder) in str(error.value) and "data build" in str(error.value)
    file.write_bytes(flipped)
    with pytest.raises(InputError, match=re.escape(file.name)):
        list(builders.open_built(tmp_path, name, split))
    file.unlink()
    with pytest.raises(InputError, match="is damaged, or cannot be read"):
        list(builders.open_built(tmp_path, name, split))
