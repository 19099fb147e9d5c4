"""Checkpoint files: what is read is what was written, or the file is refused by name; a write that
fails leaves the old file; the newest stay."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import re
import subprocess
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
    assert same(checkpoint.load(str(tmp_path / "a.ckpt")), state())


def test_the_same_state_gives_the_same_bytes(tmp_path: Path, intact: bytes) -> None:
    checkpoint.save(tmp_path / "other.ckpt", state())
    assert (tmp_path / "other.ckpt").read_bytes() == intact


@pytest.mark.usefixtures("unread")
def test_a_file_cut_short_anywhere_is_found(tmp_path: Path, intact: bytes) -> None:
    for size in range(HEADER.size):
        reason = refusal(tmp_path / "a.ckpt", intact[:size])
        assert reason == "not a checkpoint of Trimtab"
    length = len(intact) - HEADER.size
    for there in range(0, length, 31):
        reason = refusal(tmp_path / "a.ckpt", intact[: HEADER.size + there])
        assert reason == f"{there} bytes of {length} are there"


@pytest.mark.usefixtures("unread")
def test_one_flipped_bit_anywhere_is_found(tmp_path: Path, intact: bytes) -> None:
    for offset in [*range(HEADER.size), *range(HEADER.size, len(intact), 29)]:
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
        (lambda d: d[1:], "not a checkpoint"),
    ],
    ids=["byte appended", "doubled", "zeroed page", "swapped pages", "shifted"],
)
def test_other_damage_is_found(
    tmp_path: Path, intact: bytes, damage: Callable[[bytes], bytes], reason: str
) -> None:
    assert damage(intact) != intact
    assert reason in refusal(tmp_path / "a.ckpt", damage(intact))


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    "data", [b"", b"\n", MAGIC, b"PK\x03\x04" + bytes(99), pickle.dumps({"a": 1})], ids=ascii
)
def test_a_foreign_file_is_named(tmp_path: Path, data: bytes, intact: bytes) -> None:
    reasons = {refusal(tmp_path / "a.ckpt", content) for content in (data, intact[HEADER.size :])}
    assert reasons == {"not a checkpoint of Trimtab"}


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("version", [0, VERSION + 1, 2**32 - 1])
def test_a_file_of_another_version_is_named(tmp_path: Path, version: int, intact: bytes) -> None:
    reason = refusal(tmp_path / "a.ckpt", framed(intact[HEADER.size :], version))
    assert reason.startswith(f"format {version}, this version reads {VERSION}")


def test_a_file_of_the_first_format_is_read(tmp_path: Path, intact: bytes) -> None:
    (tmp_path / "a.ckpt").write_bytes(framed(intact[HEADER.size :], version=1))
    assert checkpoint.load(tmp_path / "a.ckpt").keys()


class Payload:
    """Runs ``function(*args)`` when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


PAYLOADS: dict[str, Callable[[str], Payload]] = {
    "os.system": lambda mark: Payload(os.system, f"touch {mark}"),
    "subprocess.call": lambda mark: Payload(subprocess.call, ["touch", mark]),
    "exec": lambda mark: Payload(exec, f"import os; os.mkdir({mark!r})"),
    "os.mkdir": lambda mark: Payload(os.mkdir, mark),
    "Path.touch": lambda mark: Payload(Path.touch, Path(mark)),
    "getattr": lambda mark: Payload(map(os.mkdir, [mark]).__next__),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "legacy"])
@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, kind: str, zipped: bool
) -> None:
    mark, archive = tmp_path / "mark", io.BytesIO()
    content = {"model": PAYLOADS[kind](str(mark))}
    torch.save(content, archive, _use_new_zipfile_serialization=zipped)
    (tmp_path / "a.ckpt").write_bytes(framed(archive.getvalue()))
    with pytest.raises((DamagedCheckpoint, pickle.UnpicklingError)):
        checkpoint.load(tmp_path / "a.ckpt")
    assert not mark.exists()
    archive.seek(0)
    torch.load(archive, weights_only=False)
    assert mark.exists(), "the payload was a dud, and the test proved nothing"


def no_space(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("old", [None, {"step": 1}], ids=["first save", "over an old file"])
@pytest.mark.parametrize("failure", [no_space, interrupt])
@pytest.mark.parametrize("where", ["open", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, failure: Any, old: Any
) -> None:
    path = tmp_path / "a.ckpt"
    if old is not None:
        checkpoint.save(path, old)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        if where == "open":
            patch.setattr(checkpoint, "open", failure, raising=False)
        else:
            patch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[where], failure)
        with pytest.raises((OSError, KeyboardInterrupt)):
            checkpoint.save(path, state())
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    checkpoint.save(path, state())
    assert same(checkpoint.load(path), state())


def test_a_disk_that_fills_up_at_any_byte_leaves_the_old_file(tmp_path: Path, intact: bytes) -> None:
    path = tmp_path / "a.ckpt"
    checkpoint.save(path, {"step": 1})
    before = path.read_bytes()
    for size in [0, 1, HEADER.size, *range(100, len(intact), 499), len(intact) - 1]:
        with file_limit(size), pytest.raises(OSError, match="File too large"):
            checkpoint.save(path, state())
        assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]
        assert path.read_bytes() == before
    with file_limit(len(intact)):
        checkpoint.save(path, state())
    assert path.read_bytes() == intact


def test_the_bytes_reach_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, intact: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[bool, int, bool]] = []

    def fsync(number: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{number}"))
        size = 0 if target.is_dir() else target.stat().st_size
        flushed.append((target.is_dir(), size, (tmp_path / "a.ckpt").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoint.save(tmp_path / "a.ckpt", state())
    assert flushed == [(False, len(intact), False), (True, 0, True)]


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(keep=keep)
    steps = [3, 10, 99_999_999, 100_000_000, 1_000_000_000]
    for step in steps:
        path = checkpoints.save(tmp_path, step, {"step": step})
        assert path == tmp_path / "checkpoints" / f"step-{step:08d}.ckpt"
        assert checkpoint.load(path) == {"step": step}
    newest = [path.name for path in newest_first(tmp_path / "checkpoints")]
    assert newest == [f"step-{step:08d}.ckpt" for step in steps[::-1][:keep]]


def test_retention_leaves_what_is_no_checkpoint_of_ours(tmp_path: Path) -> None:
    others = ["best.ckpt", "step-00000001.ckpt.damaged", "step-1.ckpt", "step-final.ckpt"]
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in others:
        (folder / name).touch()
    for step in (1, 2, 3):
        Checkpoints(keep=1).save(tmp_path, step, {})
    assert {path.name for path in folder.iterdir()} == {*others, "step-00000003.ckpt"}


def test_the_file_just_written_stays_beside_one_of_a_later_step(tmp_path: Path) -> None:
    """A run resumed from before a checkpoint that it could not use must not drop its own."""
    checkpoints = Checkpoints(keep=1)
    checkpoints.save(tmp_path, 100, {})
    assert checkpoints.save(tmp_path, 60, {}).exists()


@pytest.mark.parametrize(("every", "due"), [(3, [3, 6, 9]), (1, [*range(1, 12)]), (None, [])])
def test_saving_is_due_every_so_many_steps(every: int | None, due: list[int]) -> None:
    checkpoints = Checkpoints(every_steps=every, every_seconds=None)
    assert [step for step in range(1, 12) if checkpoints.due(step)] == due


def test_saving_is_due_once_the_seconds_have_passed_since_the_last_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    checkpoints, due = Checkpoints(every_steps=None, every_seconds=10), []
    for _ in range(12):
        clock[0] += 4
        due.append(checkpoints.due(1))
        if due[-1]:
            checkpoints.save(tmp_path, len(due), {})
    assert due == [False, False, True] * 4


@pytest.mark.parametrize(
    ("name", "value"),
    [("every_steps", 0), ("every_steps", 1.5), ("every_steps", True), ("keep", 0), ("keep", None)]
    + [("every_seconds", bad) for bad in (0, -1, float("nan"), float("inf"), "300")],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be "):
        Checkpoints(**{name: value})
