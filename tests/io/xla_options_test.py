"""Options of compilation: those that this version of XLA knows, and no other numbers."""

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from genhmr_jax.io.xla_options import compiler_options


def test_this_version_knows_the_options():
    function = lambda x: jnp.tanh(x @ x.T).sum(0)
    x = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    found = jax.jit(function, compiler_options=compiler_options())(x)
    np.testing.assert_allclose(found, function(x), atol=1e-5)
    old = jaxlib.version.__version_info__[:2] < (0, 12)
    assert compiler_options() == ({"xla_cpu_use_fusion_emitters": False} if old else {})


def test_other_platforms_and_versions_have_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() == {}
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jaxlib.version, "__version_info__", (0, 12, 0))
    assert compiler_options() == {}
