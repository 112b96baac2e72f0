"""The error for bad input."""

from genhmr_jax.io.errors import InputError


def test_a_message_that_repeats_the_file_is_cut():
    error = InputError("file.npz", "x" * 10**6, "copy it again")
    assert str(error).startswith("file.npz: xxx") and str(error).endswith("...; copy it again")
    assert len(str(error)) < 2000 and error.problem in str(error)
