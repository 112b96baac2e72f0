"""The `genhmr` command around a made-up model: files, lines, exit codes. Bad input is in
bad_input_test.py."""

import dataclasses
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import genhmr_jax
from genhmr_jax import People
from genhmr_jax.cli import main
from support.fakes import fake_people, install_fake_recover, save_photo


@pytest.fixture
def calls(monkeypatch):
    return install_fake_recover(monkeypatch)


def test_help_and_version_load_neither_jax_nor_the_model():
    code = (
        "import sys\nfrom genhmr_jax.cli import main\n"
        "try:\n    main.main(sys.argv[1:])\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        "heavy = {'jax', 'numpy', 'numba', 'PIL'} & set(sys.modules)\nassert not heavy, "
        "heavy\nsys.exit(code)"
    )
    for arguments in (["--help"], ["recover", "--help"], ["demo", "--help"], ["--version"]):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "genhmr" in done.stdout
        assert time.perf_counter() - start < 5
    assert done.stdout == f"genhmr {genhmr_jax.__version__}\n"


def test_one_photo(tmp_path, calls, capsys):
    photo = save_photo(tmp_path / "x.jpg")
    assert main.main(["recover", str(photo), "--out", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x.npz", "x_overlay.png"]
    people = People.load(tmp_path / "out" / "x.npz")
    assert len(people) == 2 and list(people.image_size) == [60, 40]
    with Image.open(tmp_path / "out" / "x_overlay.png") as overlay:
        assert overlay.width > 60 and overlay.height == 40, "the photo with a side view beside it"
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.startswith("x.jpg: 2 people, confidence 0.80, reprojection 10.0 -> 5.0 px, ")
    assert output.out.endswith("x_overlay.png\n") and output.out.count("\n") == 1
    assert calls.loaded == [(None, "neutral")]


def test_flags_reach_the_model(tmp_path, calls):
    photo = save_photo(tmp_path / "x.jpg")
    flags = (
        "--body male --checkpoint some/where --iterations 7 --hypotheses 4 --refine-steps 0 "
        "--fov 60 --seed 3 --max-people 2"
    )
    flags += " --context keypoints"
    assert (
        main.main(
            ["recover", str(photo), "--out", str(tmp_path / "out"), "--no-overlay", *flags.split()]
        )
        == 0
    )
    assert calls.loaded == [("some/where", "male")]
    options = calls.options[0]
    assert (
        options.iterations,
        options.hypotheses,
        options.refine_steps,
        options.fov,
        options.focal,
    ) == (7, 4, 0, 60.0, None)
    assert (options.seed, options.max_people, options.context) == (3, 2, "keypoints")
    assert options.temperature == 1.0, "several hypotheses need chance"
    assert not (tmp_path / "out" / "x_overlay.png").exists()


def test_meshes_can_be_read_again(tmp_path, calls):
    import trimesh

    photo = save_photo(tmp_path / "x.jpg")
    assert main.main(["recover", str(photo), "--out", str(tmp_path), "--save", "obj,GLB,ply"]) == 0
    people = People.load(tmp_path / "x.npz")
    for person in range(2):
        for suffix in ("obj", "glb", "ply"):
            mesh = trimesh.load_mesh(tmp_path / f"x_{person}.{suffix}", process=False)
            assert (
                mesh.vertices.shape == people.vertices[person].shape
                and mesh.faces.shape == people.faces.shape
            )


def test_a_directory_gives_one_line_a_photo_and_loads_the_model_once(tmp_path, calls, capsys):
    for name in ("b.png", "a.jpg", "c.jpg"):
        save_photo(tmp_path / name)
    assert (
        main.main(["recover", str(tmp_path), "--out", str(tmp_path / "out"), "--no-overlay"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["[1/3] a.jpg", "[2/3] b.png", "[3/3] c.jpg"]
    assert len(calls.loaded) == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.npz", "b.npz", "c.npz"]


def test_output_beside_the_photos_is_not_taken_for_photos(tmp_path, calls):
    save_photo(tmp_path / "x.png")
    for _ in range(2):
        assert main.main(["recover", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz", "x.png", "x_overlay.png"]


def test_a_body_behind_the_camera_costs_a_line(tmp_path, calls, capsys):
    people = fake_people(2)
    vertices = people.vertices.copy()
    vertices[1, :2, 2] = -0.1
    calls.result = dataclasses.replace(people, vertices=vertices)
    photo = save_photo(tmp_path / "x.jpg")
    assert main.main(["recover", str(photo), "--out", str(tmp_path), "--fov", "170"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"genhmr: {photo}: 50 % of person 2 lies behind the camera; give the --fov or "
        f"--focal of this photo"
    )
    assert (tmp_path / "x_overlay.png").exists()


def test_people_beyond_the_most_are_said(tmp_path, calls, capsys):
    calls.result = dataclasses.replace(fake_people(2), left_out=np.int32(3))
    assert (
        main.main(
            ["recover", str(save_photo(tmp_path / "x.jpg")), "--out", str(tmp_path), "--no-overlay"]
        )
        == 0
    )
    assert "x.jpg: 2 people (3 more left out, see --max-people), " in capsys.readouterr().out


def test_given_people_who_are_left_out_cost_a_line_and_are_numbered(tmp_path, calls, capsys):
    """Of four given boxes the first has a low score, the second lies outside; the model sees nobody
    in the third."""
    photo = save_photo(tmp_path / "x.jpg")
    boxes = [[0, 0, 30, 39], [70, 0, 20, 30], [5, 5, 20, 20], [9, 9, 30, 30]]
    records = [
        {"image_id": "x", "bbox": box, "score": score}
        for box, score in zip(boxes, (0.1, 0.9, 0.9, 0.9), strict=True)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    calls.result = fake_people(1, given_index=np.array([1]))
    flags = ["--boxes", str(tmp_path / "boxes.json"), "--no-overlay"]
    assert main.main(["recover", str(photo), "--out", str(tmp_path), *flags]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"genhmr: {photo}: left out 1 of 4 given people with scores below 0.2 (--min-score); "
        f"person 2 of 4 given: the box "
        "70, 0, 90, 30 lies outside this photo of 60 x 40 px; person 3 of 4 given: too little "
        "of a person is seen in the box"
    )
    assert People.load(tmp_path / "x.npz").given_index.tolist() == [3]
    assert len(calls.boxes[0]) == 2 and calls.options[0].max_people is None


def test_nobody_of_the_given_people_is_left(tmp_path, calls, capsys):
    calls.result = fake_people(0)
    photo = save_photo(tmp_path / "x.jpg")
    assert main.main(["recover", str(photo), "--out", str(tmp_path), "--boxes", "5,5,40,30"]) == 1
    assert (
        "nobody is left: person 1 of 1 given: too little of a person is seen in the box"
        in capsys.readouterr().err
    )
    (tmp_path / "boxes.json").write_text('{"x": []}')
    assert (
        main.main(
            ["recover", str(photo), "--out", str(tmp_path), "--boxes", str(tmp_path / "boxes.json")]
        )
        == 1
    )
    assert "boxes.json has nobody for this photo" in capsys.readouterr().err


def test_demo_uses_the_photo_of_the_package(tmp_path, calls, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.main(["demo"]) == 0
    assert sorted(p.name for p in (tmp_path / "genhmr_demo").iterdir()) == [
        "person.npz",
        "person_overlay.png",
    ]
    assert calls.images[0].shape == (720, 640, 3)


def test_boxes_and_keypoints_of_the_user_reach_the_model(tmp_path, calls):
    photo = save_photo(tmp_path / "x.jpg")
    (tmp_path / "boxes.json").write_text('{"x": [[1, 2, 30, 39]]}')
    assert (
        main.main(
            ["recover", str(photo), "--out", str(tmp_path), "--boxes", str(tmp_path / "boxes.json")]
        )
        == 0
    )
    assert np.array_equal(calls.boxes[0], [[1, 2, 30, 39]]) and calls.keypoints[0] is None


@pytest.mark.parametrize(
    "flags",
    [
        "--iterations 0", "--iterations 2.5", "--temperature -1", "--temperature nan",
        "--hypotheses 0", "--refine-steps -1", "--focal 0",
        "--focal inf", "--fov 180", "--fov 60 --focal 500", "--seed -1", "--max-people 0",
        "--save fbx", "--save obj,fbx",
        "--hypotheses 3 --temperature 0",
    ],
)  # fmt: skip
def test_flags_out_of_range_are_usage_errors(tmp_path, calls, capsys, flags):
    photo = save_photo(tmp_path / "x.jpg")
    with pytest.raises(SystemExit) as stop:
        main.main(["recover", str(photo), "--out", str(tmp_path / "out"), *flags.split()])
    assert stop.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("genhmr") and flags.split()[0] in message
    assert not (tmp_path / "out").exists() and not calls.loaded


def test_no_command_and_no_output_directory_are_usage_errors(capsys):
    for arguments in ([], ["recover", "x.jpg"], ["dance"]):
        with pytest.raises(SystemExit) as stop:
            main.main(arguments)
        assert stop.value.code == 2


def test_the_compilation_cache_is_kept_where_asked_and_is_no_must(tmp_path, monkeypatch):
    import jax

    from genhmr_jax.io import compilation_cache, program_store

    before = (
        jax.config.jax_compilation_cache_dir,
        jax.config.jax_persistent_cache_min_compile_time_secs,
    )
    monkeypatch.setenv("GENHMR_CACHE", str(tmp_path / "cache"))
    try:
        assert compilation_cache.enable() == tmp_path / "cache" / "xla"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "xla")
    finally:
        program_store.use(None)
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENHMR_CACHE", str(tmp_path / "file"))
    assert compilation_cache.enable() is None
