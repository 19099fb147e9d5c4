"""The recurrent network: what reaches what through time, ties, the gate that keeps, and refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from models.rnn import RNN

SHAPES: Any = ((12,), (20, 12))
CELLS = ["lstm", "gru"]


def model(**settings: Any) -> RNN:
    torch.manual_seed(0)
    return RNN(*SHAPES, **{"width": 16, **settings}).double().eval()


def tokens(length: int = 12) -> torch.Tensor:
    return torch.randint(0, 20, (3, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("length", [1, 12, 30])
def test_answers_every_token_of_a_text_of_any_length(cell: str, length: int) -> None:
    assert model(cell=cell, depth=2)(tokens(length)).shape == (3, 20, length)


@pytest.mark.parametrize("cell", CELLS)
def test_a_token_reaches_the_logits_from_its_place_on_and_none_before(cell: str) -> None:
    built, text = model(cell=cell, depth=2, norm="layer"), tokens()
    changed = text.clone()
    changed[:, 5] = (text[:, 5] + 1) % 20
    difference = (built(changed) - built(text)).abs().amax((0, 1))
    assert difference[:5].max() == 0
    assert difference[5:].min() > 0


def test_is_embedding_lstm_norm_and_head_one_after_the_other() -> None:
    built, text = model(depth=2, norm="rms"), tokens()
    x = built.embedding(text)
    for layer, norm in zip(built.layers, built.norms, strict=True):
        x = norm(layer(x)[0])
    expected = x @ built.head.weight.T + built.head.bias
    torch.testing.assert_close(built(text), expected.transpose(1, 2))


def test_tied_has_one_matrix_for_embedding_and_head() -> None:
    free, tied = model(), model(tied=True)
    counts = [sum(p.numel() for p in each.parameters()) for each in (free, tied)]
    assert counts[0] - counts[1] == 20 * 16 + 20
    x = tied.layers[0](tied.embedding(tokens()))[0]
    torch.testing.assert_close(tied(tokens()), (x @ tied.embedding.weight.T).transpose(1, 2))
    assert tied(tokens()).std() < 1  # an embedding drawn from N(0, 1) would start at √width times that


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bias", [1.0, -2.0])
def test_forget_bias_is_how_much_of_the_state_a_step_keeps(cell: str, bias: float) -> None:
    built = model(cell=cell, forget_bias=bias, depth=2)
    for layer in built.layers:
        for name, parameter in layer.named_parameters():
            if "weight" in name:
                nn.init.zeros_(parameter)
            else:  # of the other gates
                for gate in (0, *range(2, len(parameter) // 16)):
                    nn.init.zeros_(parameter.data[16 * gate : 16 * (gate + 1)])
        state = torch.randn(1, 1, 16, dtype=torch.float64)
        states = (torch.zeros_like(state), state) if cell == "lstm" else state
        _, after = layer(torch.zeros(1, 1, 16, dtype=torch.float64), states)
        kept = after[1] if cell == "lstm" else after
        torch.testing.assert_close(kept, state / (1 + math.exp(-bias)))


@pytest.mark.parametrize("cell", CELLS)
def test_no_forget_bias_leaves_what_torch_draws(cell: str) -> None:
    built = model(cell=cell, forget_bias=None)
    torch.manual_seed(0)
    nn.Embedding(20, 16)
    plain = (nn.LSTM if cell == "lstm" else nn.GRU)(16, 16).double()
    pairs = zip(plain.parameters(), built.layers[0].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_dropout_is_between_layers_in_training_alone() -> None:
    built = model(dropout=0.5)
    assert torch.equal(built(tokens()), built(tokens()))
    built.train()
    assert not torch.equal(built(tokens()), built(tokens()))
    assert (built.dropout(torch.ones(1000)) == 0).double().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_on_the_cpu_leaves_the_recurrence_in_float32(cell: str) -> None:
    """Where the CPU has no bfloat16 instructions torch's LSTM would raise."""
    built = model(cell=cell, depth=2).float()
    seen = []
    for layer in built.layers:
        layer.register_forward_hook(lambda *call: seen.append(call[2][0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert built(tokens()).dtype == torch.bfloat16  # of the head
    assert seen == [torch.float32, torch.float32]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("cell", "rnn"),
        ("width", 0),
        ("depth", 0),
        ("dropout", 1),
        ("norm", "batch"),
        ("tied", 1),
        ("forget_bias", math.nan),
    ],
)
def test_refuses_a_bad_knob_by_name(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {bad!r}"):
        RNN(*SHAPES, **{name: bad})


def test_refuses_what_is_no_text() -> None:
    with pytest.raises(ValueError, match=r"^input_shape must be \(length,\), .* for images"):
        RNN((1, 8, 8), (1, 8, 8))
