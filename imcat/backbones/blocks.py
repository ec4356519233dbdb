"""The block of a vision transformer.

It computes what timm's ``Block`` does, with weights of the same names, so that weights can be exchanged. Importing timm
takes longer than classifying a field, and ``imcat run`` needs nothing else of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Block"]

_EPSILON = 1e-6  # of the normalisations


class Attention(nn.Module):
    """Self-attention with several heads.

    Parameters
    ----------
    width, heads : int
        Length of a token, number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[n, tokens, width]`` to the same."""
        n, count, width = tokens.shape
        query, key, value = (
            self.qkv(tokens).reshape(n, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        # Of so few tokens, torch's fused attention takes longer on processors than two plain products.
        if tokens.device.type == "cpu":
            score = (query @ key.transpose(-2, -1)).float() * (width // self.heads) ** -0.5
            seen = torch.softmax(score, dim=-1).to(value.dtype) @ value
        else:
            seen = nn.functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(seen.transpose(1, 2).reshape(n, count, width))
        return out


class Mlp(nn.Module):
    """Two layers, applied to each token.

    Parameters
    ----------
    width, hidden : int
        Length of a token, and between the layers.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[n, tokens, width]`` to the same."""
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(tokens)))
        return out


class Block(nn.Module):
    """Attention, then an MLP, each with normalised input and added to it (Dosovitskiy et al. 2021, arXiv:2010.11929).

    Parameters
    ----------
    width, heads : int
        Length of a token, number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, _EPSILON), nn.LayerNorm(width, _EPSILON)
        self.attn, self.mlp = Attention(width, heads), Mlp(width, 4 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[n, tokens, width]`` to the same."""
        tokens = tokens + self.attn(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out
