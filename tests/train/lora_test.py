"""Low-rank adapters and partly frozen encoders: what they start as, what learns, what is
exported."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.io.errors import InputError
from genhmr_jax.nets import vit
from genhmr_jax.train import lora, step
from genhmr_jax.train.checkpoint import fingerprint
from genhmr_jax.train.flops import function_flops
from genhmr_jax.train.mesh import path_name
from genhmr_jax.train.optim import frozen_layers, frozen_mask, make_optimizer
from genhmr_jax.train.random_streams import stream

ROWS, WIDTH, DEPTH, RANK = 4, 24, 3, 2
KERNELS = {
    "encoder/blocks/qkv/kernel": (WIDTH, 3 * WIDTH),
    "encoder/blocks/fc2/kernel": (4 * WIDTH, WIDTH),
}
VIT = vit.VitSpec(WIDTH, DEPTH, 2, image=(64, 48))


class Toy:
    """A stage whose encoder is a small ViT and whose decoder is one matrix; what it exports is kept
    in `exported`."""

    frozen = ()

    def init(self, key):
        graph, state = nnx.split(vit.Vit(VIT, rngs=nnx.Rngs(key)))
        self.graph = graph
        return {
            "encoder": nnx.to_pure_dict(state),
            "transformer": {"head": {"kernel": jax.random.normal(key, (WIDTH, 3))}},
        }, {}

    def forward(self, params, images):
        return (
            jnp.mean(nnx.merge(self.graph, params["encoder"])(images)[0], (1, 2))
            @ params["transformer"]["head"]["kernel"]
        )

    def warm_start(self, params):
        return jax.tree.map(lambda x: x + 1, params)

    def prepare(self, frozen, batch):
        return batch

    def loss(self, params, extra, frozen, sample):
        value = jnp.sum((self.forward(params, sample["images"]).astype(jnp.float32) - 1.0) ** 2)
        return value, {"terms": {"square": value}, "metrics": {}, "carry": {}}

    def next_extra(self, extra, carry, key):
        return extra, {}

    def evaluate(self, params, extra, frozen, place):
        return {"kernels": float(sum(jnp.sum(x**2) for x in jax.tree.leaves(params["encoder"])))}

    def export(self, directory, params, extra, measured):
        self.exported = params


@pytest.fixture(scope="module")
def config(get_config):
    """qkv and fc2 of the encoder are adapted, the rest of it is frozen."""
    c = get_config("genhmr/tiny")
    c.optim.learning_rate, c.optim.warmup, c.optim.weight_decay = 0.01, 0, 0.1
    c.lora.rank, c.lora.pattern, c.optim.frozen = (
        RANK,
        "encoder/blocks/(qkv|fc2)/kernel",
        ("encoder/.*",),
    )
    return c


@pytest.fixture(scope="module")
def toy():
    return Toy()


@pytest.fixture(scope="module")
def params(toy):
    """Of the stage without adapters."""
    return jax.jit(lambda: toy.init(stream(0, "parameters"))[0])()


@pytest.fixture(scope="module")
def batch():
    return {
        "images": np.random.default_rng(1).normal(size=(ROWS, *VIT.image, 3)).astype(np.float32)
    }


def flat(tree) -> dict:
    return {path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def trained(task, config, batch, steps: int = 2):
    """Parameters before and after some steps, the optimiser's arrays, and the loss before each
    step."""
    optimizer = make_optimizer(config.optim, 10, jax.eval_shape(task.init, jax.random.key(0))[0])
    state = jax.jit(lambda: step.init_state(task, optimizer, 0))()
    run, before, losses = jax.jit(step.make_step(task, optimizer, config)), state["params"], []
    for _ in range(steps):
        state, metrics = run(state, batch, task.frozen)
        losses.append(float(metrics["loss"]))
    return before, state, losses


@pytest.fixture(scope="module")
def run(toy, config, batch):
    return trained(lora.adapted(toy, config), config, batch)


def test_the_adapted_network_starts_as_the_plain_one(params, config, run):
    before = run[0]
    assert set(flat(before["lora"])) == {f"{name}/{x}" for name in KERNELS for x in "ab"}
    for name, (inside, outside) in KERNELS.items():
        assert flat(before["lora"])[f"{name}/a"].shape == (DEPTH, inside, RANK)
        assert flat(before["lora"])[f"{name}/b"].shape == (DEPTH, RANK, outside)
        assert 0.7 < flat(before["lora"])[f"{name}/a"].std() * inside**0.5 < 1.4
    merged = flat(lora.merge(before, config.lora))
    for name, value in flat(params).items():
        np.testing.assert_allclose(merged[name], value, atol=1e-7)
    assert set(merged) == set(flat(params))


def test_only_adapters_and_the_decoder_learn(config, run):
    before, state, losses = run
    old, new = flat(before), flat(state["params"])
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert {f"lora/{name}/{x}" for name in KERNELS for x in "ab"} <= changed
    assert not any(name.startswith("encoder/") for name in changed) and any(
        name.startswith("transformer/") for name in changed
    )
    moments = [name for name in flat(state["opt_state"]) if "/mu/" in name]
    assert not any("/mu/encoder/" in name for name in moments)
    assert sum("/mu/lora/" in name for name in moments) == 2 * len(KERNELS)
    assert np.isfinite(losses).all() and losses[1] != losses[0]


def test_the_merged_kernel_is_w_plus_scaled_ab(config, run):
    params = run[1]["params"]
    merged, arrays = flat(lora.merge(params, config.lora)), flat(params)
    for name in KERNELS:
        a, b = (arrays[f"lora/{name}/{x}"].astype(np.float64) for x in "ab")
        wanted = arrays[name] + config.lora.alpha / RANK * np.stack(
            [a[i] @ b[i] for i in range(DEPTH)]
        )
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(merged[name], wanted, rtol=1e-5, atol=1e-6)


def test_what_is_exported_computes_what_was_trained(toy, config, batch, run):
    """Merged kernels, against low-rank products beside the kernels; neither the export nor the
    measurement knows of adapters."""
    params, task = run[1]["params"], lora.adapted(toy, config)
    task.export("somewhere", jax.device_get(params), {}, {})
    assert "lora" not in toy.exported and jax.tree.structure(toy.exported) == jax.tree.structure(
        lora.plain(params)
    )
    assert task.evaluate(params, {}, (), None) == pytest.approx(
        toy.evaluate(toy.exported, {}, (), None), rel=1e-5
    )

    arrays, scale = flat(params), config.lora.alpha / RANK

    def beside(h: jax.Array, name: str, layer: int) -> jax.Array:
        kernel, bias = arrays[name][layer], arrays[name.replace("kernel", "bias")][layer]
        low = (
            h @ arrays[f"lora/{name}/a"][layer] @ arrays[f"lora/{name}/b"][layer]
            if f"lora/{name}/a" in arrays
            else 0.0
        )
        return h @ kernel + scale * low + bias

    def norm(h: jax.Array, name: str, layer: int | None = None) -> jax.Array:
        weight = {
            x: arrays[f"{name}/{x}"] if layer is None else arrays[f"{name}/{x}"][layer]
            for x in ("scale", "bias")
        }
        return (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6) * weight[
            "scale"
        ] + weight["bias"]

    model, at = nnx.merge(toy.graph, toy.exported["encoder"]), "encoder/blocks"
    x = (
        model.patch(batch["images"]).reshape(ROWS, -1, WIDTH)
        + model.position[...][1:]
        + model.position[...][:1]
    )
    for i in range(DEPTH):
        q, k, v = jnp.split(
            beside(norm(x, f"{at}/norm1", i), f"{at}/qkv/kernel", i).reshape(
                ROWS, -1, 6, WIDTH // 2
            ),
            3,
            axis=2,
        )
        x = x + beside(
            jax.nn.dot_product_attention(q, k, v).reshape(x.shape), f"{at}/proj/kernel", i
        )
        hidden = jax.nn.gelu(
            beside(norm(x, f"{at}/norm2", i), f"{at}/fc1/kernel", i), approximate=False
        )
        x = x + beside(hidden, f"{at}/fc2/kernel", i)
    wanted = norm(x, "encoder/norm").mean(1) @ arrays["transformer/head/kernel"]
    np.testing.assert_allclose(toy.forward(toy.exported, batch["images"]), wanted, atol=2e-4)
    assert (
        np.abs(toy.forward(lora.plain(params), batch["images"]) - wanted).max() > 1e-3
    )  # and the adapters matter


def test_it_starts_from_a_plain_model(toy, config, run):
    before = run[0]
    started = lora.adapted(toy, config).warm_start(before)
    np.testing.assert_array_equal(started["encoder"]["position"], before["encoder"]["position"] + 1)
    np.testing.assert_array_equal(
        flat(started["lora"])["encoder/blocks/qkv/kernel/a"],
        flat(before["lora"])["encoder/blocks/qkv/kernel/a"],
    )


def test_small_changes_survive_bfloat16(config, run):
    """Merged before rounding: an A B below the last bit of each kernel still moves the kernels that
    round up or down for it."""
    params = jax.tree.map(lambda x: x, run[0])
    tree = params["lora"]["encoder"]["blocks"]["qkv"]["kernel"]
    tree["b"] = jnp.full_like(tree["b"], 1e-6)
    before = flat(lora.plain(params))["encoder/blocks/qkv/kernel"].astype(jnp.bfloat16)
    after = flat(lora.merge(params, config.lora))["encoder/blocks/qkv/kernel"].astype(jnp.bfloat16)
    assert 0.001 < np.mean(before != after) < 0.5


def test_the_last_layers_alone_learn(toy, config, batch):
    c = config.copy_and_resolve_references()
    (
        c.lora.rank,
        c.optim.frozen,
        c.optim.encoder_layers,
        c.optim.layer_decay,
        c.optim.weight_decay,
    ) = 0, (), 2, 0.5, 0.0
    task = lora.adapted(toy, c)
    assert task is toy
    before, state, _ = trained(task, c, batch, 1)
    old, new = flat(before), flat(state["params"])
    for name in old:
        if name.startswith("encoder/blocks/"):
            np.testing.assert_array_equal(old[name][0], new[name][0])
            assert not name.endswith("kernel") or all(
                (old[name][i] != new[name][i]).any() for i in (1, 2)
            ), name
        elif name.startswith(("encoder/patch", "encoder/position")):
            np.testing.assert_array_equal(old[name], new[name])
    assert (old["encoder/norm/scale"] != new["encoder/norm/scale"]).any()
    moved = (
        np.abs(new["encoder/blocks/fc1/kernel"] - old["encoder/blocks/fc1/kernel"])
        .reshape(DEPTH, -1)
        .max(1)
    )
    np.testing.assert_allclose(
        moved[1] / moved[2], 0.5, rtol=1e-2
    )  # the decay counts from the last layer, as without freezing
    moments = {
        name: x.shape for name, x in flat(state["opt_state"]).items() if "/mu/encoder/" in name
    }
    assert moments and all(shape[0] == 2 for name, shape in moments.items() if "/blocks/" in name)
    assert not any("patch" in name or "position" in name for name in moments)


def test_no_backward_pass_through_frozen_layers(toy, params, batch, config):
    """The same output and the same gradient of the last layers, at less work."""

    def output(encoder, frozen):
        return jnp.sum(
            nnx.merge(toy.graph, encoder)(batch["images"], remat="blocks", frozen_layers=frozen)[0]
            ** 2
        )

    whole, cut = (
        jax.jit(jax.value_and_grad(functools.partial(output, frozen=frozen))) for frozen in (0, 2)
    )
    (value, every), (same, last) = whole(params["encoder"]), cut(params["encoder"])
    np.testing.assert_allclose(value, same, rtol=1e-6)
    for name, gradient in flat(every["blocks"]).items():
        mine = flat(last["blocks"])[name]
        np.testing.assert_allclose(mine[2], gradient[2], rtol=1e-4, atol=1e-5)
        assert not mine[:2].any() and np.abs(gradient[:2]).max() > 0
    assert not np.any(last["patch"]["kernel"]) and not np.any(last["position"])
    work = [
        function_flops(jax.grad(functools.partial(output, frozen=frozen)), params["encoder"])
        for frozen in (0, 2, 3)
    ]
    assert work[2] < work[1] < 0.7 * work[0]
    c = config.copy_and_resolve_references()
    c.optim.encoder_layers = 1
    assert frozen_layers(c, DEPTH) == 0, "its layers have adapters, which learn"
    c.lora.rank = 0
    assert frozen_layers(c, DEPTH) == 2


def test_none_of_the_layers_learns(params, config):
    c = config.copy_and_resolve_references()
    c.optim.frozen, c.optim.encoder_layers = (), 0
    frozen = {name for name, x in flat(frozen_mask(params, c.optim)).items() if x}
    assert frozen == {
        name
        for name in flat(params)
        if name.startswith("encoder/") and not name.startswith("encoder/norm/")
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pattern": "encoder/nothing"}, "lora.pattern: 'encoder/nothing' matches no parameter"),
        (
            {"pattern": "encoder/blocks/qkv/.*"},
            "matches encoder/blocks/qkv/bias .*, which is not a kernel; match kernels only",
        ),
    ],
)
def test_what_cannot_be_adapted_is_named(toy, params, config, changes, said):
    c = config.copy_and_resolve_references()
    c.lora.update(changes)
    with pytest.raises(InputError, match=said):
        lora.add(params, lora.adapted(toy, c).config.lora, jax.random.key(0))


def test_fields_of_lora_count_only_with_a_rank(config, get_config):
    c = get_config("genhmr/tiny")
    other = c.copy_and_resolve_references()
    other.lora.alpha, other.lora.pattern = 3.0, "another"
    assert fingerprint(other, {}) == fingerprint(c, {})
    other.lora.rank = 2
    assert fingerprint(other, {}) != fingerprint(c, {})
    changed = [
        key
        for key, value in fingerprint(config, {}).items()
        if fingerprint(c, {}).get(key) != value
    ]
    assert {"lora", "optim"} <= set(changed)
