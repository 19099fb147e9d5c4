"""A file hashed while it is written: every byte is there, in the hash, and every error comes out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from full_disk import file_limit

from trainer.hashed import PIECE, HashedWriter, write_hashed


@contextmanager
def opened(path: Path, head: bytes = b"head") -> Iterator[BinaryIO]:
    with open(path, "w+b", buffering=0) as file:
        file.write(head)
        yield file


@pytest.mark.parametrize("sizes", [[], [0], [1], [PIECE, 1, 0, PIECE + 1], [3] * 1000])
def test_the_hash_is_that_of_what_was_written_after_the_head(tmp_path: Path, sizes: list[int]) -> None:
    blocks = [os.urandom(size) for size in sizes]

    def write(writer: HashedWriter) -> None:
        assert [writer.write(memoryview(block)) for block in blocks] == sizes
        writer.flush()

    with opened(tmp_path / "a") as file:
        length, digest = write_hashed(file, write)
    content = b"".join(blocks)
    assert (tmp_path / "a").read_bytes() == b"head" + content
    assert (length, digest) == (len(content), hashlib.sha256(content).digest())


def test_a_full_disk_is_told_as_such_and_not_by_the_writer_that_met_it(tmp_path: Path) -> None:
    taken = []

    def write(writer: HashedWriter) -> None:
        taken.extend(writer.write(bytes(60)) for _ in range(3))

    with opened(tmp_path / "a") as file, file_limit(100), pytest.raises(OSError, match="too large"):
        write_hashed(file, write)
    assert taken == [60, 60, 60]


def test_an_error_of_the_caller_comes_out_and_no_thread_stays(tmp_path: Path) -> None:
    threads: list[Any] = []

    def write(writer: HashedWriter) -> None:
        threads.append(writer)
        raise KeyboardInterrupt

    with opened(tmp_path / "a") as file, pytest.raises(KeyboardInterrupt):
        write_hashed(file, write)
    assert not threads[0].is_alive()


def test_a_file_that_someone_else_cut_short_is_an_error(tmp_path: Path) -> None:
    def write(writer: HashedWriter) -> None:
        writer.file.truncate(2)
        writer.ends.put(100)

    with opened(tmp_path / "a") as file, pytest.raises(OSError, match="cut short"):
        write_hashed(file, write)
