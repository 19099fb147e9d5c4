"""The transformer: causality, the tie, its own initialization, and refusals."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import softmax

from models.activations import ACTIVATIONS
from models.transformer import Transformer

SHAPES: Any = ((12,), (20, 12))


def model(**settings: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(*SHAPES, **{"width": 16, **settings}).double().eval()


def tokens(length: int = 12) -> torch.Tensor:
    return torch.randint(0, 20, (3, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_token_reaches_the_logits_from_its_place_on_and_none_before(norm: str) -> None:
    built, text = model(depth=3, norm=norm), tokens()
    changed = text.clone()
    changed[:, 5] = (text[:, 5] + 1) % 20
    difference = (built(changed) - built(text)).abs().amax((0, 1))
    assert difference[:5].max() == 0
    assert difference[5:].min() > 0


@pytest.mark.parametrize("length", [1, 7, 12])
def test_a_shorter_text_is_answered_as_the_beginning_of_a_longer(length: int) -> None:
    built, text = model(), tokens()
    short = built(text[:, :length])
    assert short.shape == (3, 20, length)
    torch.testing.assert_close(short, built(text)[..., :length])


def test_a_longer_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a text must have at most 12 tokens, got 13$"):
        model()(tokens(13))


def test_places_differ() -> None:
    same = torch.zeros(1, 12, dtype=torch.int64)
    logits = model()(same)[0]
    assert (logits[:, 1:] - logits[:, :-1]).abs().amax(0).min() > 0


def test_embedding_and_head_are_one_parameter() -> None:
    built = model()
    names = [name for name, parameter in built.named_parameters() if 20 in parameter.shape]
    assert names == ["embedding.weight"]
    built.norm = nn.Identity()
    built.blocks = nn.ModuleList()
    x = built.embedding.weight[tokens()] + built.positions.weight
    torch.testing.assert_close(built(tokens()), (x @ built.embedding.weight.T).transpose(1, 2))


def test_a_block_is_the_written_formula() -> None:
    block = model(heads=2).blocks[0]
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    normed = block.attend_norm(x)
    heads = []
    for rows in (slice(0, 8), slice(8, 16)):
        maps = (block.query, block.key, block.value)
        q, k, v = (normed @ linear.weight[rows].T for linear in maps)
        scores = q @ k.transpose(1, 2) / math.sqrt(8)
        scores = scores.masked_fill(~torch.ones(5, 5).tril().bool(), -math.inf)
        heads.append(softmax(scores, -1) @ v)
    y = x + torch.cat(heads, -1) @ block.out.weight.T + block.out.bias
    hidden = nn.functional.gelu(block.feed_norm(y) @ block.rise.weight.T + block.rise.bias)
    torch.testing.assert_close(block(x), y + hidden @ block.fall.weight.T + block.fall.bias)


def test_weights_are_drawn_as_gpt_2_s_and_branch_ends_smaller_with_depth() -> None:
    torch.manual_seed(0)
    built = Transformer((64,), (200, 64), width=128, depth=8)
    for name, parameter in built.named_parameters():
        if parameter.dim() > 1:
            end = name.endswith(("out.weight", "fall.weight"))
            assert parameter.std().item() == pytest.approx(0.02 / (4 if end else 1), rel=0.03), name
        elif "norm" not in name:
            assert not parameter.any(), name


def test_it_starts_out_knowing_nothing() -> None:
    torch.manual_seed(0)
    text = torch.randint(0, 65, (8, 64))
    loss = nn.functional.cross_entropy(Transformer((64,), (65, 64))(text), text.roll(-1, 1))
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_selu_brings_its_own_first_layer_and_alpha_dropout(activation: str) -> None:
    block = model(width=256, activation=activation, dropout=0.1).blocks[0]
    selu = activation == "selu"
    assert block.rise.weight.std().item() == pytest.approx(1 / 16 if selu else 0.02, rel=0.02)
    assert type(block.activation[1]) is (nn.AlphaDropout if selu else nn.Dropout)


def test_learns_to_repeat_what_came_three_places_before() -> None:
    """What no model without memory can: the targets are independent of the token at hand."""
    torch.manual_seed(0)
    built = Transformer((16,), (8, 16), width=32, heads=2)
    optimizer = torch.optim.Adam(built.parameters(), 3e-3)
    for _ in range(200):
        text = torch.randint(0, 8, (32, 16))
        loss = nn.functional.cross_entropy(built(text)[..., 3:], text[:, :-3])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 < math.log(8)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("width", 0),
        ("depth", 0),
        ("heads", 0),
        ("mlp_ratio", 1.5),
        ("dropout", 1),
        ("activation", "rleu"),
        ("norm", "none"),
    ],
)
def test_refuses_a_bad_knob_by_name(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {bad!r}"):
        Transformer(*SHAPES, **{name: bad})


@pytest.mark.parametrize(("width", "heads", "fitting"), [(64, 5, 4), (30, 4, 3), (7, 5, 1), (4, 8, 4)])
def test_heads_that_do_not_divide_the_width_are_told_how_many_do(
    width: int, heads: int, fitting: int
) -> None:
    line = f"heads must divide width={width}, got {heads}; use model.heads={fitting}"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        Transformer(*SHAPES, width=width, heads=heads)


@pytest.mark.parametrize(
    ("shapes", "line"),
    [
        (((1, 8, 8), (1, 8, 8)), r"^input_shape must be \(length,\), .* got \(1, 8, 8\); use model=mlp"),
        (((10,), (1,)), r"^output_shape must be \(vocabulary, 10\), .* got \(1,\); use model=mlp"),
    ],
)
def test_refuses_images_and_vectors(shapes: Any, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Transformer(*shapes)
