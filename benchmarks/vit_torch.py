"""The ViT of models/vit.py (ViTPose's form) in plain PyTorch, for benchmarks/vit_vs_torch.py: same
network, same weights."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from genhmr_jax.nets.vit import VitSpec


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); PyTorch chooses the kernel of the
    attention."""

    def __init__(self, spec: VitSpec):
        super().__init__()
        self.heads = spec.heads
        self.norm1, self.norm2 = (
            nn.LayerNorm(spec.width, eps=1e-6),
            nn.LayerNorm(spec.width, eps=1e-6),
        )
        self.qkv, self.proj = (
            nn.Linear(spec.width, 3 * spec.width),
            nn.Linear(spec.width, spec.width),
        )
        self.fc1, self.fc2 = (
            nn.Linear(spec.width, 4 * spec.width),
            nn.Linear(4 * spec.width, spec.width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, S, C)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class TorchVit(nn.Module):
    """Images (B, 3, H, W) -> tokens (B, h w, C)."""

    def __init__(self, spec: VitSpec):
        super().__init__()
        self.patch = nn.Conv2d(3, spec.width, spec.patch, spec.patch, spec.padding)
        self.position = nn.Parameter(torch.zeros(spec.grid[0] * spec.grid[1] + 1, spec.width))
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.width, eps=1e-6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The tokens of the last layer, normalised."""
        x = self.patch(images).flatten(2).transpose(1, 2) + self.position[1:] + self.position[:1]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def from_jax(spec: VitSpec, params: dict) -> TorchVit:
    """The network with the parameters of a models.vit.Vit, as nested NumPy arrays."""

    def state(tree: dict, prefix: str) -> dict[str, torch.Tensor]:
        found = {}
        for name, value in tree.items():
            if isinstance(value, dict):
                found |= state(value, f"{prefix}{name}.")
            elif name == "kernel":
                found[f"{prefix}weight"] = torch.from_numpy(
                    np.array(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T)
                )
            else:
                found[prefix + ("weight" if name == "scale" else name)] = torch.from_numpy(
                    np.array(value)
                )
        return found

    def layer(tree: dict, n: int) -> dict:
        return {
            name: layer(value, n) if isinstance(value, dict) else value[n]
            for name, value in tree.items()
        }

    rest = {name: value for name, value in params.items() if name != "blocks"}
    tensors = state(rest, "")
    for n in range(spec.depth):
        tensors |= state(layer(params["blocks"], n), f"blocks.{n}.")
    with torch.device("meta"):
        model = TorchVit(spec)
    model.load_state_dict(tensors, assign=True)
    return model
