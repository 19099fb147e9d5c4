"""A recurrent network for texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from models import checks
from models.norms import TEXT, norm_layers

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class RNN(nn.Module):
    """Embedding, recurrent layers and a linear head: tokens (B, T) to logits (B, V, T).

    The logits at t depend on the tokens up to t. Dropout is on the connections between layers only, not
    on those through time (arXiv 1409.2329); the normalization follows each layer. torch's LSTM kernel
    has no batching rule: `torch.vmap` takes stacked members one by one, and warns.

    Args:
        input_shape: (T,) of one text.
        output_shape: (V, T), V tokens in the vocabulary.
        cell: lstm or gru (arXiv 1406.1078).
        width: of the embedding and of each layer's state.
        depth: layers, >= 1.
        dropout: probability of an entry to be dropped between two layers, in [0, 1).
        norm: none, layer or rms.
        tied: the embedding is the head's matrix too (arXiv 1608.05859); it is then drawn from
            N(0, 1/width) and there is no bias.
        forget_bias: bias, at the start, of the gate that keeps the state: LSTM's forget gate
            (Jozefowicz et al. 2015, who recommend 1), GRU's update gate; None for torch's own.

    Raises:
        ValueError: for shapes that are not those of texts, or a value out of range.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        cell: str = "lstm",
        width: int = 128,
        depth: int = 1,
        dropout: float = 0.0,
        norm: str = "none",
        tied: bool = False,
        forget_bias: float | None = 1.0,
    ) -> None:
        super().__init__()
        vocabulary, _ = checks.text(input_shape, output_shape)
        checks.choice("cell", cell, CELLS)
        checks.whole("width", width, 1, "the default is 128")
        checks.whole("depth", depth, 1, "the default is 1")
        checks.share("dropout", dropout, "0 is none")
        checks.choice("norm", norm, ("none", *TEXT))
        checks.yes_or_no("tied", tied)
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(CELLS[cell](width, width, batch_first=True) for _ in range(depth))
        self.norms = nn.ModuleList(nn.Sequential(*norm_layers(TEXT, norm, width)) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.head = None if tied else nn.Linear(width, vocabulary)
        if tied:
            nn.init.normal_(self.embedding.weight, std=width**-0.5)
        if forget_bias is not None:
            self._set_forget_bias(checks.number("forget_bias", forget_bias, remedy="1 is usual"))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 to (B, V, T), for any T."""
        x = self.dropout(self.embedding(tokens))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.dropout(norm(_recur(layer, x)))
        logits = linear(x, self.embedding.weight) if self.head is None else self.head(x)
        return logits.transpose(1, 2)

    @torch.no_grad()
    def _set_forget_bias(self, value: float) -> None:
        for name, parameter in self.layers.named_parameters():
            if "bias" in name:  # there are two, which are added
                gate = parameter.split(self.embedding.embedding_dim)[1]
                gate.fill_(value if "bias_ih" in name else 0.0)


def _recur(layer: nn.Module, x: Tensor) -> Tensor:
    """(B, T, W) to (B, T, W), the layer's state after each token."""
    if x.is_cpu and torch.is_autocast_enabled("cpu"):
        # On a CPU without bfloat16 instructions the fused LSTM fails instead of falling back.
        with torch.autocast("cpu", enabled=False):
            states: Tensor = layer(x.float())[0]
    else:
        states = layer(x)[0]
    return states
