"""A transformer decoder for texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from models import checks
from models.activations import ACTIVATIONS, dropout_after
from models.norms import TEXT


class Transformer(nn.Module):
    """Pre-norm decoder with causal attention: tokens (B, T) to logits (B, V, T).

    x_0 = E[tokens] + P, then per block x + attend(norm(x)) and x + feed(norm(x)), where feed(x) =
    W₂ φ(W₁ x); the logits are E norm(x), with the same E (arXiv 1706.03762; GPT-2's form with tied
    embeddings and learned positions P). Queries, keys and values have no bias: that of the keys would
    cancel in the softmax.

    Weights are drawn from N(0, 0.02²), biases 0, and the last layer of each of the 2·depth residual
    branches from N(0, 0.02²/(2·depth)), so that their sum does not grow with depth. With selu W₁ is
    drawn from N(0, 1/width), as a self-normalizing layer asks for (arXiv 1706.02515).

    Args:
        input_shape: (T,) of one text; forward takes shorter ones too.
        output_shape: (V, T), V tokens in the vocabulary.
        width: of the embeddings; divisible by heads.
        depth: blocks, >= 1.
        heads: of each attention, >= 1.
        mlp_ratio: rows of W₁ per entry of the width, >= 1.
        dropout: probability in [0, 1) of an entry of x_0, of a branch's output, or of φ (there it is
            alpha dropout with selu) to be dropped.
        activation: φ: relu, leaky_relu, selu, gelu, silu or tanh.
        norm: layer or rms.

    Raises:
        ValueError: for shapes that are not those of texts, or a value out of range.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        activation: str = "gelu",
        norm: str = "layer",
    ) -> None:
        super().__init__()
        vocabulary, self.length = checks.text(input_shape, output_shape)
        checks.whole("width", width, 1, "the default is 64")
        checks.whole("depth", depth, 1, "the default is 2")
        checks.whole("heads", heads, 1, "the default is 4")
        checks.whole("mlp_ratio", mlp_ratio, 1, "the default is 4")
        checks.share("dropout", dropout, "0 is none")
        checks.choice("activation", activation, ACTIVATIONS)
        checks.choice("norm", norm, TEXT)
        if width % heads:
            fitting = max(n for n in range(1, heads) if width % n == 0)
            raise ValueError(f"heads must divide width={width}, got {heads}; use model.heads={fitting}")
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(self.length, width)
        self.dropout = nn.Dropout(dropout)
        blocks = [Block(width, heads, mlp_ratio, dropout, activation, norm) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = TEXT[norm](width)
        self._draw(blocks)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 to (B, V, T), T at most that of ``input_shape``.

        Raises:
            ValueError: for a longer text.
        """
        length = tokens.shape[1]
        if length > self.length:
            raise ValueError(f"a text must have at most {self.length} tokens, got {length}")
        x = self.dropout(self.embedding(tokens) + self.positions.weight[:length])
        for block in self.blocks:
            x = block(x)
        return linear(self.norm(x), self.embedding.weight).transpose(1, 2)

    @torch.no_grad()
    def _draw(self, blocks: Sequence[Block]) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(0.0, 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        for block in blocks:
            if isinstance(block.activation[0], nn.SELU):
                block.rise.weight.normal_(0.0, block.rise.in_features**-0.5)
            for end in block.residual_ends():
                end.weight.mul_((2 * len(blocks)) ** -0.5)


class Block(nn.Module):
    """x + attend(norm(x)), then x + feed(norm(x)): (B, T, W) to (B, T, W).

    Args:
        width: W.
        heads: into which W is split.
        mlp_ratio: hidden width of the feed-forward layers, in W.
        dropout: probability, in [0, 1).
        activation: of the feed-forward layers.
        norm: layer or rms.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: int, dropout: float, activation: str, norm: str
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attend_norm = TEXT[norm](width)
        # Three matrices and not one of three times the rows: each is initialized and clipped for itself.
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.feed_norm = TEXT[norm](width)
        self.rise = nn.Linear(width, mlp_ratio * width)
        self.activation = nn.Sequential(ACTIVATIONS[activation](), *dropout_after(activation, dropout))
        self.fall = nn.Linear(mlp_ratio * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) to (B, T, W)."""
        x = x + self.dropout(self.out(self._attend(self.attend_norm(x))))
        out: Tensor = x + self.dropout(self.fall(self.activation(self.rise(self.feed_norm(x)))))
        return out

    def residual_ends(self) -> list[nn.Linear]:
        """The last layer of each residual branch, which `models.init.zero_residual` sets to 0."""
        return [self.out, self.fall]

    def _attend(self, x: Tensor) -> Tensor:
        # (B, T, W) as (B, heads, T, W / heads)
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        attended = scaled_dot_product_attention(query, key, value, is_causal=True)
        return attended.transpose(1, 2).flatten(-2)
