"""What all tests share: CPU, the repository root, a small made-up pose corpus, and the tiny
configs."""

import itertools
import os
import pathlib
import tempfile

import jaxlib.version

# Most of the time of a test goes into compiling, and no test needs fast programs. Set before JAX is
# imported; the processes that tests start inherit it. XLA aborts on a flag that it does not know.
FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if jaxlib.version.__version_info__[:2] < (0, 12):  # as in genhmr_jax/io/xla_options.py
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

from support.paths import ROOT  # noqa: E402

jax.config.update("jax_platforms", "cpu")
# Tests, and the processes that they start, compile the same programs again and again: here each is
# compiled once. The processes of pytest-xdist share the folder of the one that started them.
if "GENHMR_TEST_CACHE" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="genhmr-test-cache-")
    os.environ["GENHMR_TEST_CACHE"] = CACHE.name
for name, value in (
    ("jax_compilation_cache_dir", os.environ["GENHMR_TEST_CACHE"]),
    ("jax_persistent_cache_min_compile_time_secs", 0.05),
):
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
flags.FLAGS.mark_as_parsed()  # grain reads absl flags


FILES_DONE = itertools.count(1)

# Files that take minutes start first (setup.cfg keeps xdist from another order), so that the two
# test processes end together.
LONG = (
    "train/processes_test",
    "train/mesh_test",
    "train/loop_test",
    "data/people_test",
    "genhmr/image_training_test",
    "recover/photo_test",
    "systems/scaling_models_test",
    "data/features_test",
    "regressors/task_test",
    "evaluate/benchmark_test",
    "lifter/lifter_test",
    "regressors/system_test",
    "cli/evaluate_test",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the tests of LONG to the front."""
    place = {name: i for i, name in enumerate(LONG)}
    name = lambda item: "/".join(item.path.with_suffix("").parts[-2:])
    items.sort(key=lambda item: place.get(name(item), len(LONG)))


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Frees the compiled programs after every twentieth file, because they fill gigabytes."""
    yield
    if next(FILES_DONE) % 20 == 0:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def no_stored_programs():
    """A command that ran in this process may have turned on the store in the user's cache."""
    from genhmr_jax.io import program_store

    program_store.use(None)


@pytest.fixture(scope="session")
def recoverer():
    """The shipped model with the free body."""
    import genhmr_jax

    return genhmr_jax.load(body="lite")


@pytest.fixture(scope="session")
def sample_image() -> np.ndarray:
    """The sample photo: uint8 (720, 640, 3)."""
    from genhmr_jax.cli.main import SAMPLE_PHOTO
    from genhmr_jax.io.images import read_image

    return read_image(SAMPLE_PHOTO)


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory) -> pathlib.Path:
    """A pose corpus of 300 smooth random poses in three clips, the last one for validation."""
    rng = np.random.default_rng(0)
    poses = np.cumsum(rng.normal(0, 0.02, (300, 72)), 0) + rng.normal(0, 0.2, 72)
    path = tmp_path_factory.mktemp("corpus") / "poses.npz"
    clip = np.repeat([0, 1, 2], [50, 150, 100])
    np.savez(path, poses=poses.astype(np.float16), split=(clip == 2).astype(np.int8), seq_id=clip)
    return path


@pytest.fixture(scope="session")
def get_config():
    """get_config("genhmr/vit:b") -> the config of configs/genhmr/vit.py:b, not locked."""
    from genhmr_jax.io.config_files import call

    def load(name: str):
        file, colon, arg = name.partition(":")
        return call(f"{ROOT}/configs/{file}.py{colon}{arg}", "get_config")

    return load


@pytest.fixture(scope="session")
def tokenizer_config(get_config, corpus_file):
    """configs/tokenizer/tiny.py on the made-up corpus. Copy it before changing it."""
    config = get_config("tokenizer/tiny")
    config.data.poses, config.log_every = str(corpus_file), 1
    return config


@pytest.fixture(scope="session")
def trained_tokenizer(tokenizer_config, tmp_path_factory) -> pathlib.Path:
    """The workdir of a tiny trained tokenizer; its model is in model/."""
    from genhmr_jax.systems import registry
    from genhmr_jax.train import loop

    workdir = tmp_path_factory.mktemp("tokenizer")
    loop.train(registry.make_task(tokenizer_config), tokenizer_config, workdir)
    return workdir


@pytest.fixture(scope="session")
def genhmr_config(get_config, corpus_file, trained_tokenizer):
    """configs/genhmr/tiny.py over that tokenizer. Copy it before changing it."""
    config = get_config("genhmr/tiny")
    config.data.poses, config.tokenizer = str(corpus_file), str(trained_tokenizer / "model")
    return config


@pytest.fixture(scope="session")
def maskhand_config(get_config, tmp_path_factory):
    """configs/maskhand/tiny.py over an untrained tokenizer. Copy it before changing it."""
    from genhmr_jax.systems import registry

    first, folder = get_config("hand_tokenizer/tiny"), tmp_path_factory.mktemp("hand_tokenizer")
    task = registry.make_task(first)
    task.export(folder, *task.init(jax.random.key(0)), {})
    config = get_config("maskhand/tiny")
    config.tokenizer = str(folder)
    return config


@pytest.fixture(scope="session")
def regressor_config(get_config, tmp_path_factory):
    """configs/regressors/tiny.py on made-up stored crops. Copy it before changing it."""
    from support import stored_rows

    config = get_config("regressors/tiny")
    config.data.images, config.data.mixture, config.data.people_val = (
        str(stored_rows.write(tmp_path_factory.mktemp("rows"))),
        "hmr2",
        "",
    )
    return config


@pytest.fixture(scope="session")
def mesh2d_config(get_config, corpus_file):
    """configs/mesh2d/tiny.py on the made-up corpus. Copy it before changing it."""
    config = get_config("mesh2d/tiny")
    config.data.poses, config.log_every = str(corpus_file), 1
    return config


@pytest.fixture(scope="session")
def posturehmr_config(get_config, corpus_file, mesh2d_config, tmp_path_factory):
    """configs/posturehmr/tiny.py over an untrained first stage. Copy it before changing it."""
    from genhmr_jax.systems import registry

    folder, task = tmp_path_factory.mktemp("mesh2d"), registry.make_task(mesh2d_config)
    params, extra = task.init(jax.random.key(0))
    task.export(folder, params, extra, {})
    config = get_config("posturehmr/tiny")
    config.data.poses, config.log_every = str(corpus_file), 1
    config.mesh2d = str(folder)
    return config


@pytest.fixture(scope="session")
def neurik_config(get_config, tmp_path_factory):
    """configs/neurik/tiny.py on made-up motions. Copy it before changing it."""
    from support import angle_labels

    config = get_config("neurik/tiny")
    config.data.angles = str(angle_labels.write(tmp_path_factory.mktemp("angles")))
    config.log_every = 1
    return config


@pytest.fixture(scope="session")
def maskhand_vit_config(get_config, maskhand_config, tmp_path_factory):
    """configs/maskhand/tiny_vit.py over an untrained tokenizer, on made-up rows with pixels."""
    from support import stored_hands

    config = get_config("maskhand/tiny_vit")
    config.tokenizer = maskhand_config.tokenizer
    config.data.images = str(stored_hands.write(tmp_path_factory.mktemp("hand_pixels")))
    return config
