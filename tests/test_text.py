"""Text: every place is at every place of a window in time; the end is predicted once."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.text import alone, gzipped, primed, xzipped
from trainer.data.text import Windows, text, text_file, topics


def numbered(count: int = 100, held_out: int = 20, **changes: Any) -> Windows:
    """Tokens that are their own places."""
    settings = {"length": 5, "batch_size": 3, **changes}
    return Windows(torch.arange(count), count, held_out, **settings)


def joined(batches: Any) -> tuple[Tensor, Tensor]:
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return inputs, targets


def test_a_target_is_what_follows_its_input() -> None:
    data = numbered()
    for inputs, targets in [*data.batches(0), *data.batches(1), *data.validation()]:
        assert torch.equal(targets, inputs + 1)
        assert torch.equal(inputs, inputs[:, :1] + torch.arange(5))
        assert targets.is_contiguous()  # so that a model may view it flat


def test_the_windows_of_an_epoch_do_not_overlap_and_stay_in_the_training_text() -> None:
    data = numbered()
    for epoch in range(30):
        inputs, targets = joined(data.batches(epoch))
        assert len(inputs) == data.windows == 15
        assert len(set(inputs.flatten().tolist())) == inputs.numel()
        assert targets.max() < 80


def test_in_time_every_place_of_the_text_is_at_every_place_of_a_window() -> None:
    data = numbered()
    starts = {int(row[0]) for epoch in range(60) for row in joined(data.batches(epoch))[0]}
    assert starts == set(range(75))
    assert {int(joined(data.batches(epoch))[1].max()) for epoch in range(60)} == set(range(75, 80))


def test_each_character_of_the_validation_text_is_predicted_once() -> None:
    for size in (1, 3):
        _, targets = joined(numbered(batch_size=size).validation())
        assert targets.flatten().tolist() == list(range(80, 100))


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_begun_in_the_middle_goes_on_as_it_would_have(epoch: int) -> None:
    whole = list(numbered(seed=4).batches(epoch))
    assert len(whole) == numbered().batches_per_epoch == 5
    for start in range(6):
        later = list(numbered(seed=4).batches(epoch, start))
        assert len(later) == 5 - start
        assert all(torch.equal(a[0], b[0]) for a, b in zip(later, whole[start:], strict=True))


def test_seeds_and_epochs_have_their_own_order_and_offset() -> None:
    keys = [(seed, epoch) for seed in range(4) for epoch in range(4)]
    orders = {tuple(joined(numbered(seed=s).batches(e))[0][:, 0].tolist()) for s, e in keys}
    assert len(orders) == len(keys)


def test_tokens_stay_whole_numbers_wherever_they_are_moved() -> None:
    data = numbered().to(torch.device("cpu"), torch.float64)
    assert {t.dtype for t in next(data.batches(0))} == {torch.int64}


def test_the_topics_are_split_at_the_end_and_named() -> None:
    content, data = topics(), text()
    (train, val), characters = (data.split, len(content) - data.split), data.provenance["characters"]
    assert characters == {"train": train, "val": val}
    assert val / len(content) == pytest.approx(0.1, abs=0.001)
    assert data.provenance["sha256"] == hashlib.sha256(content.encode()).hexdigest()
    assert (data.input_shape, data.output_shape) == ((128,), (data.provenance["vocabulary"], 128))
    assert list(data.metrics) == ["bpc"]
    assert not data.metrics["bpc"].higher_is_better


def test_tokens_are_characters_of_the_text_and_back(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    content = "abcä\n" * 12 + "ab?!" + "\n"
    path.write_text(content, encoding="utf-8")
    data = text_file(str(path), length=5, val_fraction=0.1)
    assert data.provenance["characters"] == {"train": 60, "val": 5}
    assert data.provenance["unknown"] == 2  # ? and ! are not in the training text
    assert data.provenance["vocabulary"] == 6
    names = [*sorted("abcä\n"), "�"]
    spelled = "".join(names[token] for token in data.tokens)
    assert spelled == content.replace("?", "�").replace("!", "�")


def test_a_text_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    for name, start in (("plain", b""), ("marked", b"\xef\xbb\xbf")):
        (tmp_path / name).write_bytes(start + b"abcdefgh" * 9)
    first, second = (text_file(str(tmp_path / name), length=4) for name in ("plain", "marked"))
    assert torch.equal(first.tokens, second.tokens)


def test_chance_costs_the_logarithm_of_the_vocabulary() -> None:
    data = numbered(count=128)
    _, targets = next(data.validation())
    logits = torch.zeros(len(targets), *data.output_shape)
    values = data.metrics["bpc"].function(logits, targets)
    torch.testing.assert_close(values, torch.full((len(targets),), 7.0))


def test_the_bars_are_those_of_the_programs() -> None:
    content = "the same words again and again, " * 30
    for size, unpack in ((gzipped, gzip.decompress), (xzipped, lzma.decompress)):
        packed = {gzipped: gzip.compress, xzipped: lzma.compress}[size](content.encode())
        assert unpack(packed).decode() == content
        assert alone(size, content) == pytest.approx(8 * len(packed) / len(content), rel=0.1)
        assert primed(size, content, content) < alone(size, content) / 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length must be a whole number >= 1, got 0"),
        ({"length": 1.5}, "length must be a whole number >= 1, got 1.5"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"length": 21}, "length must be at most half the training text, 80 characters, and at most"),
        ({"count": 29, "held_out": 20}, "length must be at most half the training text, 9 characters"),
    ],
)
def test_a_setting_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        numbered(**changes)


@pytest.mark.parametrize("fraction", [0, 1, None])
def test_a_share_out_of_range_is_refused(fraction: Any) -> None:
    with pytest.raises(ValueError, match=r"^val_fraction must be"):
        text(val_fraction=fraction)
