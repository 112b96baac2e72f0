"""`genhmr serve` where it cannot serve: one line, exit code 1."""

import importlib.util
import socket

import pytest

from genhmr_jax.cli import main
from genhmr_jax.recover import command


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    monkeypatch.setattr(command, "load", lambda args: (None, None))


def test_a_missing_extra_is_named(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    assert main.main(["serve"]) == 1
    line = 'genhmr: genhmr serve: uvicorn is not installed; pip install "genhmr_jax[server]"\n'
    assert capsys.readouterr().err == line


def test_a_port_in_use(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main.main(["serve", "--port", port]) == 1
    line = f"genhmr: --host 127.0.0.1 --port {port}: cannot be listened on (Address already in use"
    assert capsys.readouterr().err.startswith(line)


def test_an_address_that_does_not_exist(capsys):
    assert main.main(["serve", "--host", "256.0.0.1"]) == 1
    assert "--host 256.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize("flags", ["--port 70000", "--queue 0", "--timeout nan", "--max-pixels 1"])
def test_limits_have_limits(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["serve", *flags.split()])
    assert stop.value.code == 2 and "must be" in capsys.readouterr().err
