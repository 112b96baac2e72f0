"""Conversion of PyTorch checkpoints to our networks."""

import collections
import dataclasses
import hashlib
import pathlib
from typing import Any

import jax

from genhmr_jax.io import torch_layouts
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.safetensors import read_safetensors
from genhmr_jax.io.torch_files import read, tensors
from genhmr_jax.nets import vit_params
from genhmr_jax.systems.regressors import model
from genhmr_jax.systems.regressors import params as names


def convert(
    checkpoint: str, tokenizer: str = "", expert: int = 0
) -> tuple[str, Any, dict[str, Any], dict[str, Any]]:
    """Read the networks in a checkpoint.

    Args:
      checkpoint: the file.
      tokenizer: TokenHMR's tokenizer.pth, for its checkpoint.
      expert: of a ViTPose++, see `vit_params.with_expert`.

    Returns:
      "vit", "hmr2" or "tokenhmr"; parameters {"encoder"[, "head"]}, float32; their spec for
      config.json; the report for `table`. Its "publisher" is "hamer" for HaMeR's checkpoint, of
      which only the backbone is read, and else the kind.

    Raises:
      InputError: not such a checkpoint, or a part of it is missing or misshapen.
    """
    file = pathlib.Path(checkpoint)
    content = read_safetensors(file) if file.suffix == ".safetensors" else read(file)
    found = dict(tensors(content))
    encoder, params, report = vit_params.convert(vit_params.with_expert(found, expert, file), file)
    own_name = lambda name: name.split("smpl_head.", 1)[-1]
    inside = [name for name in report["unused"] if "smpl_head." in name]
    head = {own_name(name): found[name] for name in inside}
    kind = "vit"
    if "decpose_grot.weight" in head:
        kind = "tokenhmr"
    elif "decpose.weight" in head:
        kind = "hmr2"
    params, spec = {"encoder": params}, {"encoder": encoder}
    if kind != "vit":
        params["head"], spec, taken = _head(kind, head, encoder, file, tokenizer)
        report["loaded"] += [f"smpl_head.{name}" for name in taken]
        report["unused"] = [name for name in report["unused"] if own_name(name) not in taken]
    elif tokenizer:
        problem = f"is for TokenHMR, but {file} is no TokenHMR checkpoint"
        raise InputError(tokenizer, problem, "leave --tokenizer out")
    publisher = "hamer" if any("mano_head." in name for name in report["unused"]) else kind
    count = sum(x.size for x in jax.tree.leaves(params))
    return kind, params, spec, report | {"numbers": count, "publisher": publisher}


def _head(
    kind: str, head: torch_layouts.Tensors, encoder: str, file: pathlib.Path, tokenizer: str
) -> tuple[Any, dict[str, Any], set[str]]:
    """Parameters of a regressor's head, its spec, and the names of the tensors that were used."""
    spec = model.RegressorSpec(kind, encoder, crop="hmr2")
    like = model.graph(spec)[1]["head"]
    rules = names.TOKENHMR_HEAD if kind == "tokenhmr" else names.HMR2_HEAD
    own = {name: part for name, part in like.items() if name not in ("tokens", "codebook")}
    params, taken = torch_layouts.fit(head, rules, own, file, f"{kind}'s head")
    if kind == "tokenhmr":
        if not tokenizer:
            problem = "is TokenHMR, whose token decoder is in another file"
            raise InputError(file, problem, "give it with --tokenizer tokenizer.pth")
        net = dict(tensors(_net(read(tokenizer), tokenizer)))
        part = lambda rules, like, name: torch_layouts.fit(net, rules, like, tokenizer, name)[0]
        params["tokens"] = part(names.TOKEN_DECODER, like["tokens"], "the token decoder")
        params |= part(names.CODEBOOK, {"codebook": like["codebook"]}, "the codebook")
    return params, dataclasses.asdict(spec), taken


def _net(content: Any, where: str) -> Any:
    if not isinstance(content, dict) or "net" not in content:
        problem = "is no tokenizer of TokenHMR (it has no `net`)"
        raise InputError(where, problem, "give tokenizer.pth as it was published")
    return content["net"]


_REASONS = {
    "smpl": "SMPL's own arrays, under SMPL's licence",
    "mano": "MANO's own arrays, under MANO's licence",
    "mano_head": "HaMeR's regressor, not supported; it holds MANO's mean pose",
}
"""Why a part of a checkpoint is left out."""


def table(report: dict[str, Any]) -> str:
    """The number of loaded tensors of each part, and the reason why others were left out."""
    part_of = lambda name: name.removeprefix("state_dict.").split(".")[0]
    loaded = collections.Counter(map(part_of, report["loaded"]))
    unused = collections.Counter(map(part_of, report["unused"]))
    lines = ["| part | loaded | left out | |", "| --- | --- | --- | --- |"]
    for part in sorted(loaded | unused):
        reason = "not needed to run" if unused[part] else ""
        reason = _REASONS.get(part, reason)
        lines.append(f"| {part} | {loaded[part]} | {unused[part]} | {reason} |")
    return "\n".join(lines)


def sha256(file: str | pathlib.Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
