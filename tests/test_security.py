"""A checkpoint from a stranger: whatever it holds, it is refused by one line or it is plain data.

Nothing in it is called, imported or written, no other file is opened, and it gets no more memory than
a small multiple of its size. Files cut short or damaged by accident are in ``test_checkpoint.py``.
"""

from __future__ import annotations

import io
import os
import random
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import FILES, HARMLESS, HOSTILE, framed
from torch import nn
from watching import ASKED, bounded_memory, watched

from trainer import checkpoint
from trainer.checkpoint import HEADER, DamagedCheckpoint


def refused(path: Path) -> bool:
    """Whether the file is refused, in one line that names it; if not, it must be plain data."""
    line = ""
    try:
        state = checkpoint.load(path)
    except DamagedCheckpoint as error:
        line = str(error)
    if line:
        assert re.fullmatch(re.escape(str(path)) + ": .+", line)
        return True
    assert type(state) is dict
    assert plain(state)
    return False


def plain(value: Any) -> bool:
    """Whether a value is data all through."""
    if isinstance(value, dict):
        hidden = set(getattr(value, "__dict__", {})) - {"_metadata"}
        return not hidden and all(map(plain, [*value.keys(), *value.values()]))
    if isinstance(value, list | tuple | set):
        return all(map(plain, value))
    return value is None or isinstance(value, str | int | float | complex | torch.Tensor)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small checkpoint. Loading it imports whatever torch imports for any."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "norms": [0.5, (1, None)]}
    path = tmp_path_factory.mktemp("genuine") / "a.ckpt"
    checkpoint.save(path, state)
    assert not refused(path)
    data = path.read_bytes()
    # For these torch and pickletools import parts of themselves, the same ones whatever the file says.
    for what in ("os.system", "a call of a tensor", "a text of protocol 0"):
        path.write_bytes(framed(HOSTILE[what]))
        assert refused(path)
    return data


@pytest.mark.usefixtures("genuine")
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.ckpt"
    path.write_bytes(framed(HOSTILE[what]))
    modules = set(sys.modules)
    with bounded_memory(), watched() as seen:
        assert refused(path) or what in HARMLESS
    assert seen.count("open") == 1, "another file was opened"
    assert set(seen) <= ASKED
    assert set(sys.modules) == modules
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("length", [0, 2**31, 2**60, 2**64 - 1])
def test_a_length_that_lies_costs_no_memory(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(framed(FILES["text"], length))
    with bounded_memory():
        assert refused(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.ckpt"
    if kind == "device":
        path.symlink_to("/dev/zero")
    else:
        {"pipe": os.mkfifo, "folder": os.mkdir}[kind](path)
    with bounded_memory():
        assert refused(path)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The data with some damage: bits, bytes and numbers changed, blocks lost, doubled or moved."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        b = min(b, a + rng.choice((1, 2, 4, 8, 64, 512)))
        c = rng.randrange(len(data) + 1)
        number = rng.choice((0, 1, 127, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1)).to_bytes(8, "little")
        noise = rng.randbytes(b - a)
        flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in data[a:b][:2])
        middle = rng.choice(
            (noise, flipped, b"", data[a:b] * 2, bytes(b - a), number[: b - a], data[c:][:8])
        )
        data = data[:a] + middle + data[b if rng.random() < 0.9 else a :]
    return data if rng.random() < 0.9 else data[: rng.randrange(len(data) + 1)]


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_mutated_file_is_refused_or_plain_data(tmp_path: Path, genuine: bytes, count: int) -> None:
    """With its old hash it is always refused. With a new hash, the archive's reader meets the damage;
    with a new archive around a mutated pickle, the unpickler does."""
    rng, path, payload = random.Random(0), tmp_path / "a.ckpt", genuine[HEADER.size :]
    archive = zipfile.ZipFile(io.BytesIO(payload))
    records = {record: archive.read(record) for record in archive.namelist()}
    outcomes = {kind: [0, 0] for kind in ("stale", "archive", "pickle")}
    modules = set(sys.modules)
    for number in range(count):
        kind = ("stale", "archive", "pickle", "pickle")[number % 4]
        if kind == "pickle":
            with zipfile.ZipFile(buffer := io.BytesIO(), "w") as rebuilt:
                for record, content in records.items():
                    hit = record.endswith("data.pkl")
                    rebuilt.writestr(record, mutated(rng, content) if hit else content)
            data = framed(buffer.getvalue())
        else:
            data = mutated(rng, genuine) if kind == "stale" else framed(mutated(rng, payload))
        path.write_bytes(data)
        with bounded_memory(), watched() as seen:
            found = refused(path)
        assert found or kind != "stale" or data == genuine
        assert set(seen) <= ASKED, (kind, number, set(sys.modules) - modules)
        outcomes[kind][found] += 1
    print(outcomes)
    assert set(sys.modules) == modules
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
    assert all(sum(counts) and counts[True] for counts in outcomes.values())
    assert outcomes["pickle"][False], "no mutation came through to the unpickler"
