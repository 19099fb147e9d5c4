"""Every data source there is, found by glob: what the loop and the record may rely on."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from readme_table import CONF
from states import equal
from torch import Tensor

from trainer import targets
from trainer.data.tensors import Batch
from trainer.rng import rng_state

NAMES = sorted(path.stem for path in CONF.glob("data/*.yaml"))
SMALLER: dict[str, dict[str, Any]] = {"photos": {"samples": 100}, "watermark": {"samples": 100}}
OF_THE_SEED = {"random"}  # whose samples themselves are drawn with it
ROWS = "a,b,y\n" + "".join(f"{i},{(3 * i) % 7},{2 * i}\n" for i in range(90))


def files(folder: Path) -> dict[str, dict[str, Any]]:
    """What the sources that read a file are given."""
    (folder / "table.csv").write_text(ROWS)
    (folder / "book.txt").write_text("the same words again and again, " * 400)
    np.savez(folder / "arrays.npz", x=np.random.default_rng(0).random((90, 3)), y=np.arange(90.0))
    for name in ("cat", "dog"):
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(45):
            Image.new("RGB", (6, 6), (i, 0, 0)).save(folder / "pictures" / name / f"{i}.png")
    table = str(folder / "table.csv")
    return {
        "csv": {"path": table, "targets": "y"},
        "huggingface": {"path": table, "inputs": ["a", "b"], "targets": "y"},
        "image_folder": {"path": str(folder / "pictures")},
        "npz": {"path": str(folder / "arrays.npz")},
        "text_file": {"path": str(folder / "book.txt")},
    }


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Builds a source as its YAML says, in ``epoch``s of at most a few batches."""
    given = files(tmp_path_factory.mktemp("data"))

    def built(name: str, **changes: Any) -> Any:
        if name == "huggingface":
            pytest.importorskip("datasets")
        node = OmegaConf.to_container(OmegaConf.load(CONF / "data" / f"{name}.yaml"))
        assert isinstance(node, dict)
        keys = {str(key): value for key, value in node.items() if key != "_target_"}
        if keys.get("path", "") is None:
            assert name in given, f"a file for {name} is wanted in files()"
        keys |= SMALLER.get(name, {}) | given.get(name, {}) | changes
        return targets.locate(node["_target_"])(**keys)

    return built


def flat(batch: Batch) -> list[Tensor]:
    inputs, several = batch
    return [inputs, *(several if isinstance(several, tuple) else (several,))]


def same(first: Any, second: Any) -> bool:
    pairs = [zip(flat(a), flat(b), strict=True) for a, b in zip(first, second, strict=True)]
    return all(torch.equal(x, y) for pair in pairs for x, y in pair)


@pytest.mark.parametrize("name", NAMES)
def test_an_epoch_is_a_function_of_seed_and_epoch_alone(name: str, build: Callable[..., Any]) -> None:
    data, before = build(name, seed=3), rng_state(torch.device("cpu"))
    whole = list(data.batches(2))
    assert len(whole) == data.batches_per_epoch
    torch.rand(3)
    again = build(name, seed=3)
    next(again.batches(1))  # what was served before leaves no trace
    assert same(again.batches(2), whole)
    for start in (1, len(whole) // 2, len(whole)):
        assert same(again.batches(2, start), whole[start:])
    assert not same([next(data.batches(1))], whole[:1])
    assert not same([next(build(name, seed=4).batches(2))], whole[:1])
    data.batches(0)
    torch.manual_seed(0)
    after = rng_state(torch.device("cpu"))
    assert after["numpy"][2:] == before["numpy"][2:]
    assert equal(after["python"], before["python"])


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_those_of_a_sample_in_either_part(name: str, build: Callable[..., Any]) -> None:
    data = build(name)
    for inputs, several in (next(data.batches(0)), next(data.validation())):
        assert inputs.shape[1:] == data.input_shape
        assert {len(tensor) for tensor in flat((inputs, several))} == {len(inputs)}
        for metric in data.metrics.values():
            guess = torch.zeros(len(inputs), *data.output_shape)
            assert metric.function(guess, several).shape == (len(inputs),)


@pytest.mark.parametrize("name", sorted({*NAMES} - OF_THE_SEED))
def test_validation_is_the_same_for_every_seed_and_batch_size(
    name: str, build: Callable[..., Any]
) -> None:
    parts = []
    for data in (build(name), build(name, seed=5, batch_size=7)):
        list(islice(data.batches(0), 1))
        columns = zip(*map(flat, data.validation()), strict=True)
        parts.append([torch.cat(tensors) for tensors in columns])
    assert all(torch.equal(a, b) for a, b in zip(*parts, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_it_moves_to_float64(name: str, build: Callable[..., Any]) -> None:
    plain, moved = build(name), build(name).to(torch.device("cpu"), torch.float64)
    batches = (next(plain.batches(0)), next(plain.validation()))
    for a, b in zip(batches, (next(moved.batches(0)), next(moved.validation())), strict=True):
        for narrow, wide in zip(flat(a), flat(b), strict=True):
            kind = torch.complex128 if narrow.is_complex() else torch.float64
            whole = not (narrow.is_complex() or narrow.is_floating_point())
            assert wide.dtype == (narrow.dtype if whole else kind)
            torch.testing.assert_close(wide.to(narrow.dtype), narrow, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_its_samples_come_from(name: str, build: Callable[..., Any]) -> None:
    data = build(name)
    text = json.dumps(data.provenance, allow_nan=False)
    assert json.loads(text) == data.provenance  # plain values alone
    assert data.provenance.keys() >= {"train", "val", "source", "sha256", "split", "normalisation"}
    assert len(data.provenance["sha256"]) == 64
    assert data.provenance["val"] == sum(len(inputs) for inputs, _ in data.validation())
    if name not in OF_THE_SEED:
        assert build(name, seed=1).provenance == data.provenance
