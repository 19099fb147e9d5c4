"""Checkpoint files: what is read is what was written, or the file is refused by name; a write that
fails leaves the old file; the newest stay."""

from __future__ import annotations

import builtins
import errno
import hashlib
import io
import os
import pickle
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import file_limit
from torch import nn

from trainer import checkpoint
from trainer.checkpoint import HEADER, MAGIC, VERSION, Checkpoints, DamagedCheckpoint, newest_first


def state() -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "odd": [torch.zeros(0, 3), torch.tensor(float("nan")), torch.ones(2, dtype=torch.bfloat16)],
        "plain": {"step": 12, "loss": 0.1, "name": "é", "none": None, "pair": (1, True)},
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def framed(payload: bytes, version: int = VERSION) -> bytes:
    """The file that holds this payload, with a header that is right about it."""
    return HEADER.pack(MAGIC, version, len(payload), hashlib.sha256(payload).digest()) + payload


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "a.ckpt"
    checkpoint.save(path, state())
    return path.read_bytes()


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may reach the unpickler."""

    def load(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a damaged file was handed to torch.load")

    monkeypatch.setattr(torch, "load", load)


def refusal(path: Path, data: bytes) -> str:
    """What is wrong with a file of these bytes; the message has to name the file."""
    path.write_bytes(data)
    with pytest.raises(DamagedCheckpoint, match=f"^{re.escape(str(path))}: ") as caught:
        checkpoint.load(path)
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_is_read_is_what_was_written_bit_for_bit(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.ckpt", state())
    assert same(checkpoint.load(tmp_path / "a.ckpt"), state())
    assert same(checkpoint.load(str(tmp_path / "a.ckpt")), state())


def test_the_same_state_gives_the_same_bytes(tmp_path: Path, intact: bytes) -> None:
    checkpoint.save(tmp_path / "other.ckpt", state())
    assert (tmp_path / "other.ckpt").read_bytes() == intact


@pytest.mark.usefixtures("unread")
def test_a_file_cut_short_anywhere_is_found(tmp_path: Path, intact: bytes) -> None:
    for size in range(0, len(intact), 3):
        reason = refusal(tmp_path / "a.ckpt", intact[:size])
        there = size - HEADER.size
        assert reason == (
            "not a checkpoint of Trimtab"
            if there < 0
            else f"{there} bytes of {len(intact) - HEADER.size} are there"
        )


@pytest.mark.usefixtures("unread")
def test_one_flipped_bit_anywhere_is_found(tmp_path: Path, intact: bytes) -> None:
    for offset in [*range(HEADER.size), *range(HEADER.size, len(intact), 7)]:
        data = bytearray(intact)
        data[offset] ^= 1 << (offset % 8)
        assert refusal(tmp_path / "a.ckpt", bytes(data))


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda d: d + b"\0", "bytes of"),
        (lambda d: d + d, "bytes of"),
        (lambda d: d[:512] + bytes(512) + d[1024:], "does not match its SHA-256"),
        (lambda d: d[:512] + d[1024:1536] + d[512:1024] + d[1536:], "does not match its SHA-256"),
        (lambda d: bytes(len(d)), "not a checkpoint"),
        (lambda d: d[1:], "not a checkpoint"),
    ],
    ids=["byte appended", "doubled", "zeroed page", "swapped pages", "all zero", "shifted"],
)
def test_other_damage_is_found(
    tmp_path: Path, intact: bytes, damage: Callable[[bytes], bytes], reason: str
) -> None:
    assert damage(intact) != intact
    assert reason in refusal(tmp_path / "a.ckpt", damage(intact))


def torch_archive() -> bytes:
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    return buffer.getvalue()


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"TRIMTAB", b"PK\x03\x04" + bytes(99), pickle.dumps(state()), torch_archive()],
    ids=["empty", "newline", "magic alone", "zip", "pickle", "torch.save"],
)
def test_a_foreign_file_is_named(tmp_path: Path, data: bytes) -> None:
    assert refusal(tmp_path / "a.ckpt", data) == "not a checkpoint of Trimtab"


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("version", [0, VERSION + 1, 2**32 - 1])
def test_a_file_of_another_version_is_named(tmp_path: Path, version: int) -> None:
    reason = refusal(tmp_path / "a.ckpt", framed(torch_archive(), version))
    assert reason == f"format {version}, this version reads {VERSION}"


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "a.ckpt")


class Payload:
    """Runs ``function(*args)`` when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


PAYLOADS: dict[str, Callable[[str], Payload]] = {
    "os.system": lambda mark: Payload(os.system, f"touch {mark}"),
    "subprocess": lambda mark: Payload(subprocess.call, ["touch", mark]),
    "open": lambda mark: Payload(builtins.open, mark, "w"),
    "exec": lambda mark: Payload(exec, f"open({mark!r}, 'w').close()"),
    "os.mkdir": lambda mark: Payload(os.mkdir, mark),
    "Path.touch": lambda mark: Payload(Path.touch, Path(mark)),
    "partial": lambda mark: Payload(map(os.mkdir, [mark]).__next__),
}


@pytest.mark.parametrize("form", ["archive", "bare pickle"])
@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, kind: str, form: str
) -> None:
    mark = tmp_path / "mark"
    content = pickle.dumps({"model": PAYLOADS[kind](str(mark))}, protocol=2)
    assert b"mark" in content
    payload = io.BytesIO()
    if form == "archive":
        with zipfile.ZipFile(payload, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
    else:
        payload.write(content)
    (tmp_path / "a.ckpt").write_bytes(framed(payload.getvalue()))
    with pytest.raises((DamagedCheckpoint, pickle.UnpicklingError)):
        checkpoint.load(tmp_path / "a.ckpt")
    assert not mark.exists()
    pickle.loads(content)  # the payload is live: whoever unpickles without care is hit
    assert mark.exists()
