"""A PyTorch checkpoint -> the networks that are in it."""

import collections
import dataclasses
import hashlib
import pathlib
from typing import Any

import jax

from genhmr_jax.io import torch_layouts
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.torch_files import read, read_safetensors, tensors
from genhmr_jax.nets import vit_params
from genhmr_jax.systems.regressors import model
from genhmr_jax.systems.regressors import params as names


def convert(
    checkpoint: str, tokenizer: str = "", expert: int = 0
) -> tuple[str, Any, dict[str, Any], dict[str, Any]]:
    """The networks in a checkpoint.

    Args:
      tokenizer: TokenHMR's tokenizer.pth, for its checkpoint.
      expert: of a ViTPose++, see `vit_params.with_expert`.

    Returns:
      "vit", "hmr2" or "tokenhmr"; parameters {"encoder"[, "head"]}, float32; what config.json says
      of them; the report for `table`.

    Raises:
      InputError: not such a checkpoint, or a part of it is missing or misshapen.
    """
    file = pathlib.Path(checkpoint)
    content = read_safetensors(file) if file.suffix == ".safetensors" else read(file)
    found = dict(tensors(content))
    encoder, params, report = vit_params.convert(vit_params.with_expert(found, expert, file), file)
    head = {
        name.split("smpl_head.", 1)[1]: found[name]
        for name in report["unused"]
        if "smpl_head." in name
    }
    kind = (
        "tokenhmr"
        if "decpose_grot.weight" in head
        else "hmr2"
        if "decpose.weight" in head
        else "vit"
    )
    params, spec = {"encoder": params}, {"encoder": encoder}
    if kind != "vit":
        params["head"], spec, taken = _head(kind, head, encoder, file, tokenizer)
        report["loaded"] += [f"smpl_head.{name}" for name in taken]
        report["unused"] = [
            name for name in report["unused"] if name.split("smpl_head.", 1)[-1] not in taken
        ]
    elif tokenizer:
        raise InputError(
            tokenizer, f"belongs to TokenHMR, but {file} is none", "leave --tokenizer out"
        )
    return kind, params, spec, report | {"numbers": sum(x.size for x in jax.tree.leaves(params))}


def _head(
    kind: str, head: torch_layouts.Tensors, encoder: str, file: pathlib.Path, tokenizer: str
) -> tuple[Any, dict[str, Any], set[str]]:
    """Parameters of a regressor's head, its spec, and the names that were taken."""
    spec = model.RegressorSpec(kind, encoder, crop="hmr2")
    like = model.graph(spec)[1]["head"]
    rules = names.TOKENHMR_HEAD if kind == "tokenhmr" else names.HMR2_HEAD
    own = {name: part for name, part in like.items() if name not in ("tokens", "codebook")}
    params, taken = torch_layouts.fit(head, rules, own, file, f"{kind}'s head")
    if kind == "tokenhmr":
        if not tokenizer:
            raise InputError(
                file,
                "is TokenHMR, whose token decoder lies in another file",
                "give it with --tokenizer tokenizer.pth",
            )
        net = dict(tensors(_net(read(tokenizer), tokenizer)))
        params["tokens"], _ = torch_layouts.fit(
            net, names.TOKEN_DECODER, like["tokens"], tokenizer, "the token decoder"
        )
        params |= torch_layouts.fit(
            net, names.CODEBOOK, {"codebook": like["codebook"]}, tokenizer, "the codebook"
        )[0]
    return params, dataclasses.asdict(spec), taken


def _net(content: Any, where: str) -> Any:
    if not isinstance(content, dict) or "net" not in content:
        raise InputError(
            where,
            "is no tokenizer of TokenHMR (it has no `net`)",
            "give tokenizer.pth as it was published",
        )
    return content["net"]


def table(report: dict[str, Any]) -> str:
    """How many tensors of each part were loaded, and why others were not."""
    counts: dict[str, collections.Counter] = {
        how: collections.Counter(
            name.removeprefix("state_dict.").split(".")[0] for name in report[how]
        )
        for how in ("loaded", "unused")
    }
    lines = ["| part | loaded | left out | |", "| --- | --- | --- | --- |"]
    for part in sorted(counts["loaded"] | counts["unused"]):
        why = (
            "SMPL's own arrays, under SMPL's licence"
            if part == "smpl"
            else "not needed to run"
            if counts["unused"][part]
            else ""
        )
        lines.append(f"| {part} | {counts['loaded'][part]} | {counts['unused'][part]} | {why} |")
    return "\n".join(lines)


def sha256(file: str | pathlib.Path) -> str:
    """Of a file's bytes, hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
