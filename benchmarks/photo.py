"""The stages of a further photo, in this process: detection, solve and picture."""

import functools
import tempfile

import jax
import numpy as np

import genhmr_jax
from benchmarks import machine
from benchmarks.settings import SAMPLE, Settings
from benchmarks.table import Row
from benchmarks.timing import median_seconds
from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.solve import solve
from genhmr_jax.detect import detector, graph_runner, movenet, person
from genhmr_jax.io import compilation_cache
from genhmr_jax.recover import photo as recovery
from genhmr_jax.recover import report
from genhmr_jax.train.flops import function_flops

SOURCE = "traced FLOPs"
"""Matrix products and convolutions of the traced program, 2 x multiply-adds (train/flops.py)."""


@functools.cache
def recoverer() -> recovery.Recoverer:
    """The shipped model with the free body."""
    compilation_cache.enable()
    return genhmr_jax.load()


def rows(settings: Settings) -> list[Row]:
    """Seconds of each stage of the sample photo, everything warm."""
    image, model = genhmr_jax.read_image(SAMPLE), recoverer()
    people = model.recover(image)
    repeats = 5 if settings.quick else 15
    floors = {
        "detection": machine.floor(detection_flops()),
        "solve": machine.floor(solve_flops(1)),
    }
    calls = {
        "detection": lambda: detector.detect(image),
        "solve": functools.partial(solved, model, people_of_sample(1)),
        "picture": lambda: report.draw(report.panel(image), people),
        "recovery (detection and solve)": lambda: model.recover(image),
        "all, with its files": lambda: everything(model, image),
    }
    if not settings.quick:
        other = genhmr_jax.load(model="posturehmr")
        calls["solve by PostureHMR"] = functools.partial(solved, other, prepared(other))
    return [
        Row(
            f"sample photo: {name}",
            median_seconds(call, repeats),
            floor=floors.get(name),
            floor_from=SOURCE if name in floors else "",
        )
        for name, call in calls.items()
    ]


def solved(model: recovery.Recoverer, inputs: Inputs) -> None:
    """Solve prepared people with the default options."""
    jax.block_until_ready(model.solve(inputs, np.arange(inputs.rows), recovery.RecoverOptions()))


def everything(model: recovery.Recoverer, image: np.ndarray) -> None:
    """What `genhmr recover` does with a photo that is read."""
    with tempfile.TemporaryDirectory() as folder:
        people = model.recover(image)
        people.save(f"{folder}/photo.npz")
        report.save_png(report.Path(folder) / "photo.png", report.draw(report.panel(image), people))


@functools.cache
def people_of_sample(count: int) -> Inputs:
    """The prepared inputs of the sample photo's person, in so many rows, on the device."""
    inputs = prepared(recoverer())
    return jax.device_put(jax.tree.map(lambda x: np.repeat(np.asarray(x), count, 0), inputs))


def prepared(model: recovery.Recoverer) -> Inputs:
    """The sample photo's person as the inputs of a model, one row."""
    image = genhmr_jax.read_image(SAMPLE)
    found = model.recoverable(detector.detect(image))
    height, width = image.shape[:2]
    camera = recovery.RecoverOptions().camera(width, height)
    return model.system.prepare(image, found, camera, 1)


@functools.cache
def detection_flops() -> int:
    """Operations of the detection of one person: MoveNet at both sizes, then BlazePose for each of
    its passes and for the mirror image."""
    total = 0
    for name, sizes, kind in (
        ("movenet-multipose", movenet.SIZES, np.int32),
        (detector.NETWORK, (256,) * (person.PASSES + 1), np.float32),
    ):
        graph, weights = graph_runner.load(name)
        for size in sizes:
            image = {graph.inputs[0]: jax.ShapeDtypeStruct((1, size, size, 3), kind)}
            run = functools.partial(graph_runner.run, graph)
            total += function_flops(run, weights, image)
    return total


@functools.cache
def solve_flops(count: int) -> int:
    """Operations of the solve of so many people with the default options."""
    model, options = recoverer(), recovery.RecoverOptions().solving(recoverer().system)
    inputs = people_of_sample(count)
    keys = jax.random.split(jax.random.key(0), count)
    run = lambda params, inputs: solve(
        model.system, params, model.body, model.surface, inputs, keys, options
    )
    return function_flops(run, model.params, inputs)
