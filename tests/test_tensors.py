"""Batches are a pure function of (seed, epoch, start), and data that cannot be trained on is named."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.data.tensors import Batch, TensorData, place, seeded_generator

SMALL = st.integers(1, 30)
SEED = st.integers(0, 2**32 - 1)
EPOCH = st.integers(0, 1000)


def numbered(count: int) -> Batch:
    """Inputs that tell the sample, and targets that belong to them."""
    inputs = torch.arange(count * 3.0).reshape(count, 3)
    return inputs, inputs[:, :1] + 0.5


def noisy(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Batch:
    return inputs + torch.rand(inputs.shape, generator=generator), targets


def source(count: int, batch_size: int, **changes: Any) -> TensorData:
    return TensorData(numbered(count), numbered(2), batch_size=batch_size, **changes)


def flat(batch: Batch) -> list[Tensor]:
    inputs, targets = batch
    return [inputs, *(targets if isinstance(targets, tuple) else (targets,))]


def same(first: list[Batch], second: list[Batch]) -> bool:
    pairs = [zip(flat(a), flat(b), strict=True) for a, b in zip(first, second, strict=True)]
    return all(torch.equal(x, y) for pair in pairs for x, y in pair)


@settings(deadline=None, max_examples=50)
@given(count=SMALL, size=SMALL, seed=SEED, epoch=EPOCH, start=st.integers(0, 31), drop=st.booleans())
def test_an_epoch_begun_in_the_middle_serves_the_very_same_batches(
    count: int, size: int, seed: int, epoch: int, start: int, drop: bool
) -> None:
    if drop and size > count:
        return
    options: dict[str, Any] = {"seed": seed, "drop_last": drop, "transform": noisy}
    whole = list(source(count, size, **options).batches(epoch))
    other = source(count, size, **options)
    next(other.batches(epoch + 1))  # what was served before leaves no trace
    torch.rand(3)  # nor does what others drew
    assert same(list(other.batches(epoch, start)), whole[start:])


@settings(deadline=None, max_examples=50)
@given(count=SMALL, size=SMALL, seed=SEED, epoch=EPOCH)
def test_an_epoch_serves_each_sample_once_and_with_its_own_target(
    count: int, size: int, seed: int, epoch: int
) -> None:
    data = source(count, size, seed=seed)
    batches = list(data.batches(epoch))
    assert len(batches) == data.batches_per_epoch == math.ceil(count / size)
    assert [len(inputs) for inputs, _ in batches[:-1]] == [size] * (len(batches) - 1)
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(targets, inputs[:, :1] + 0.5)
    order = inputs[:, 0].argsort()
    assert torch.equal(inputs[order], numbered(count)[0])


@settings(deadline=None, max_examples=30)
@given(count=SMALL, size=SMALL, seed=SEED, epoch=EPOCH)
def test_dropping_the_last_batch_leaves_full_ones_only(
    count: int, size: int, seed: int, epoch: int
) -> None:
    if size > count:
        return
    data = source(count, size, seed=seed, drop_last=True)
    batches = list(data.batches(epoch))
    assert len(batches) == data.batches_per_epoch == count // size
    assert {len(inputs) for inputs, _ in batches} == {size}
    assert same(batches, list(source(count, size, seed=seed).batches(epoch))[: len(batches)])


def test_every_seed_and_every_epoch_has_its_own_order() -> None:
    keys = list(itertools.product(range(5), range(5)))
    orders = {
        tuple(next(source(30, 30, seed=seed).batches(epoch))[0][:, 0].tolist()) for seed, epoch in keys
    }
    assert len(orders) == len(keys)
    assert tuple(numbered(30)[0][:, 0].tolist()) not in orders


def test_the_noise_of_a_transform_is_its_generators_alone() -> None:
    before = torch.get_rng_state()
    first = [list(source(9, 4, transform=noisy).batches(epoch)) for epoch in (0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    second = [list(source(9, 4, transform=noisy).batches(epoch)) for epoch in (0, 1)]
    assert all(map(same, first, second))
    noise = [torch.cat([x for x, _ in epoch]).frac().sort(0).values for epoch in first]
    assert not torch.equal(*noise)


def test_a_transform_does_not_change_what_the_next_epoch_is_made_of() -> None:
    def spoil(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Batch:
        return inputs.mul_(0), targets.mul_(0)

    data = source(6, 2, transform=spoil)
    list(data.batches(0))
    assert torch.equal(data.train[0], numbered(6)[0])


@settings(deadline=None, max_examples=30)
@given(count=SMALL, size=st.integers(1, 4))
def test_validation_serves_its_samples_in_order_in_batches_eight_times_as_large(
    count: int, size: int
) -> None:
    data = TensorData(numbered(2), numbered(count), batch_size=size)
    batches = list(data.validation())
    assert [len(inputs) for inputs, _ in batches[:-1]] == [8 * size] * (len(batches) - 1)
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert same([(inputs, targets)], [numbered(count)])


def test_validation_may_be_empty() -> None:
    assert list(TensorData(numbered(3), numbered(0), batch_size=2).validation()) == []


def test_shapes_are_those_of_one_sample() -> None:
    batch = torch.zeros(5, 3, 8, 8), torch.zeros(5, dtype=torch.int64)
    data = TensorData(batch, batch, batch_size=2)
    assert (data.input_shape, data.output_shape) == ((3, 8, 8), ())
    assert TensorData(batch, batch, batch_size=2, output_shape=(10,)).output_shape == (10,)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize(("name", "width"), [("input", 3), ("target", 1)])
def test_a_value_that_is_not_finite_is_named_by_sample_and_entry(
    part: str, name: str, width: int, bad: float
) -> None:
    parts = {"training": numbered(6), "validation": numbered(6)}
    entry = width - 1
    parts[part][name == "target"][4, entry] = bad
    parts[part][name == "target"][5, 0] = bad
    message = rf"^{part} {name}s must be finite, got {bad} in sample 4, entry {entry} \(2 in all\)"
    with pytest.raises(ValueError, match=message):
        TensorData(parts["training"], parts["validation"], batch_size=2)


def test_labels_and_scalar_targets_are_checked_too() -> None:
    labels = torch.tensor([0, 2, 1])
    assert TensorData((numbered(3)[0], labels), (numbered(3)[0], labels), batch_size=1)
    scalars = torch.tensor([0.0, 1.0, math.nan])
    with pytest.raises(ValueError, match="training targets must be finite, got nan in sample 2"):
        TensorData((numbered(3)[0], scalars), numbered(2), batch_size=1)


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (numbered(0), numbered(2), "training data must hold at least one sample, got none"),
        ((numbered(3)[0], numbered(2)[1]), numbered(2), "training .* as many, got 3 and 2"),
        (numbered(2), (numbered(0)[0], numbered(2)[1]), "validation .* as many, got 0 and 2"),
    ],
    ids=["empty", "mismatched", "mismatched validation"],
)
def test_data_that_is_empty_or_incomplete_is_refused(train: Batch, val: Batch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorData(train, val, batch_size=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number >= 1, got 1.5"),
        ({"batch_size": True}, "batch_size must be a whole number >= 1, got True"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"batch_size": 4, "drop_last": True}, "batch_size must be <= 3, the number of training"),
    ],
)
def test_a_setting_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorData(numbered(3), numbered(1), **({"batch_size": 1} | changes))


def test_moving_changes_the_format_of_numbers_but_not_of_labels() -> None:
    labels = torch.tensor([2, 0, 1])
    data = TensorData((numbered(3)[0], labels), (numbered(3)[0], labels), batch_size=3)
    moved = data.to(torch.device("cpu"), torch.float64)
    for inputs, targets in (next(moved.batches(0)), next(moved.validation())):
        assert (inputs.dtype, targets.dtype) == (torch.float64, torch.int64)
    order = [row[0].item() // 3 for row in next(moved.batches(0))[0]]
    plain = TensorData((numbered(3)[0], labels), (numbered(3)[0], labels), batch_size=3)
    assert order == [row[0].item() // 3 for row in next(plain.batches(0))[0]]


def several(count: int) -> Batch:
    """Inputs, and as targets complex values with a mask and a label; each tells its sample."""
    inputs, numbers = numbered(count)
    return inputs, (torch.complex(numbers, -numbers), inputs > 7, inputs[:, 0].long())


def test_a_tuple_of_targets_is_served_sample_by_sample() -> None:
    data = TensorData(several(11), several(11), batch_size=4, seed=3)
    assert (data.input_shape, data.output_shape) == ((3,), (1,))  # of the first target
    whole = list(data.batches(5))
    for inputs, targets in [*whole, *data.validation()]:
        assert isinstance(targets, tuple)
        rows = inputs[:, 0].long() // 3
        assert all(torch.equal(t, all_[rows]) for t, all_ in zip(targets, several(11)[1], strict=True))
    assert sorted(torch.cat([inputs[:, 0] for inputs, _ in whole]).tolist()) == [*range(0, 33, 3)]
    assert same(list(data.batches(5, 2)), whole[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moving_keeps_what_kind_of_numbers_targets_are(dtype: torch.dtype) -> None:
    data = TensorData(several(5), several(5), batch_size=5).to(torch.device("cpu"), dtype)
    kinds = [dtype, dtype.to_complex(), torch.bool, torch.int64]
    for batch in (next(data.batches(0)), next(data.validation())):
        assert [tensor.dtype for tensor in flat(batch)] == kinds


@pytest.mark.parametrize("bad", [complex(math.nan, 0), complex(0, math.inf)], ids=str)
def test_every_target_of_a_tuple_is_checked(bad: complex) -> None:
    inputs, targets = several(6)
    targets[0][4, 0] = bad
    with pytest.raises(ValueError, match=r"training targets must be finite.*in sample 4, entry 0"):
        TensorData((inputs, targets), several(2), batch_size=2)
    with pytest.raises(ValueError, match="validation inputs and targets must be as many, got 6 and 5"):
        TensorData(several(2), (inputs, (targets[1], targets[0][:5])), batch_size=2)


def test_where_samples_come_from_goes_with_their_number() -> None:
    data = TensorData(numbered(5), numbered(2), batch_size=2, provenance={"source": "here"})
    assert data.provenance == {"train": 5, "val": 2, "source": "here"}


def test_a_transform_may_change_the_shape_if_it_is_said() -> None:
    def narrower(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Batch:
        return inputs[:, :2], targets

    data = TensorData(numbered(4), numbered(2), batch_size=4, transform=narrower, input_shape=(2,))
    assert next(data.batches(0))[0].shape[1:] == data.input_shape


def test_a_tensor_is_placed_on_the_device() -> None:
    assert place(torch.zeros(2), torch.device("meta"), torch.float64).device.type == "meta"
    data = source(4, 2).to(torch.device("meta"), torch.float64)
    assert {t.device.type for t in (*flat(data.train), *flat(data.val))} == {"meta"}


KEYS = [(1,), (2,), (1, 2), (2, 1), (1, 2, 3), (1, 3, 2), (1, 0), (1, 0, 0), (2**32, 1), (0, 1, 1)]


def test_keys_that_differ_give_streams_that_differ() -> None:
    draws = {key: tuple(torch.rand(4, generator=seeded_generator(*key)).tolist()) for key in KEYS}
    assert len(set(draws.values())) == len(KEYS)


def test_a_key_gives_the_same_stream_whenever_it_is_asked_for() -> None:
    first, second = (torch.randn(100, generator=seeded_generator(1, 7, 3)) for _ in range(2))
    assert torch.equal(first, second)


def test_streams_of_neighbouring_keys_are_uncorrelated() -> None:
    streams = [torch.randn(4000, generator=seeded_generator(1, 0, e)).double() for e in range(12)]
    matrix = torch.corrcoef(torch.stack(streams)) - torch.eye(12, dtype=torch.float64)
    assert matrix.abs().max() < 5 / math.sqrt(4000)


def test_targets_that_are_all_masked_are_refused() -> None:
    inputs, target, mask = torch.ones(4, 2), torch.ones(4, 2), torch.zeros(4, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="training targets must not all be masked"):
        TensorData((inputs, (target, mask)), (inputs, (target, ~mask)), batch_size=2)
    TensorData((inputs, (target, ~mask)), (inputs, (target, mask)), batch_size=2)
