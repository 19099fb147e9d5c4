"""What the text models are measured against: gzip and xz on the same validation text.

``python -m benchmarks.text`` prints bits per character of either, twice: of the validation text alone,
which is the bar that a model has to get under, and of what the validation text adds when the training
text stands before it, which is fairer to models, for they have seen that text too.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable

from trainer.data.text import text, topics


def gzipped(content: bytes) -> int:
    """Bytes of ``gzip -9``."""
    return len(gzip.compress(content, 9, mtime=0))


def xzipped(content: bytes) -> int:
    """Bytes of ``xz -9``."""
    return len(lzma.compress(content, preset=9))


def alone(size: Callable[[bytes], int], val: str) -> float:
    """Bits per character of the text by itself."""
    return 8 * size(val.encode()) / len(val)


def primed(size: Callable[[bytes], int], train: str, val: str) -> float:
    """Bits per character that the text adds to the one before it."""
    return 8 * (size((train + val).encode()) - size(train.encode())) / len(val)


def main() -> None:
    """Prints the four figures."""
    content, data = topics(), text()
    train, val = content[: data.split], content[data.split :]
    unknown = data.provenance["unknown"]
    print(f"{len(train):,} characters to train on, {len(val):,} to validate on ({unknown} of them new)")
    print("bits per character   alone (the bar)   after the training text")
    for name, size in (("gzip -9", gzipped), ("xz -9", xzipped)):
        print(f"{name:<20} {alone(size, val):.3f}             {primed(size, train, val):.3f}")


if __name__ == "__main__":
    main()
