"""The shipped model behind the server: the numbers of `genhmr recover`, whoever else asks."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.cli import main
from genhmr_jax.recover.people import People
from genhmr_jax.recover.server.settings import Limits
from support.servers import running

EQUAL = {"vertices": 1e-4, "joints": 1e-4, "translation": 1e-4, "betas": 1e-3, "joints2d": 0.05}
"""Largest differences: metres, metres, metres, 1, px."""


@pytest.mark.slow
def test_the_numbers_are_those_of_the_command_in_any_company(recoverer, sample_image, tmp_path):
    mirrored = sample_image[:, ::-1]
    photos = {
        "sample": sample_image,
        "mirrored": mirrored,
        "two": np.concatenate([sample_image, mirrored], axis=1),
    }
    wanted, files = {}, {}
    for name, pixels in photos.items():
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=92)
        files[name] = stream.getvalue()
        (tmp_path / f"{name}.jpg").write_bytes(files[name])
        flags = ["--out", str(tmp_path), "--body", "lite", "--no-overlay"]
        assert main.main(["recover", str(tmp_path / f"{name}.jpg"), *flags]) == 0
        wanted[name] = People.load(tmp_path / f"{name}.npz")
    assert [len(people) for people in wanted.values()] == [1, 1, 2]

    def differences(name: str, server) -> dict[str, float]:
        reply = server.post(files[name], "?format=npz")
        assert reply.status == 200, reply.body
        found, other = People.load(io.BytesIO(reply.body)).arrays(), wanted[name].arrays()
        assert np.array_equal(found["tokens"], other["tokens"])
        return {key: float(np.abs(found[key] - other[key]).max()) for key in EQUAL}

    with running(recoverer, Limits(queue=40, timeout=240)) as server:
        alone = [differences(name, server) for name in photos]
        with ThreadPoolExecutor(16) as pool:
            order = [name for _ in range(4) for name in photos]
            together = list(pool.map(lambda name: differences(name, server), order))
        metrics = server.get("/metrics").body.decode()
    for found in (*alone, *together):
        assert all(found[key] <= EQUAL[key] for key in EQUAL), found
    # They were not solved one by one.
    groups = next(line for line in metrics.splitlines() if line.startswith("genhmr_group_photos_c"))
    assert float(groups.split()[1]) < len(alone) + len(together) - 4
