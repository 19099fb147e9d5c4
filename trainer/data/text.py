"""Text, character by character: the documentation that ships inside CPython, and any text file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from trainer import checks
from trainer.data.prepare import decoded, read, sha256
from trainer.data.tensors import ORDER, Batch, place, seeded_generator
from trainer.metrics import Metric, bits_per_label


class Windows:
    """Windows of a long sequence of tokens, and the token that follows each: (B, T) and (B, T).

    Epoch e begins at an offset 0 … T − 1 and serves its windows in an order, both drawn from (seed, e),
    so that every place of the text is at every place of a window in time. The end of the text is for
    validation: its windows do not overlap, and each of its tokens is predicted exactly once, the first
    one from what comes before it. The metric is ``bpc``, bits per character.

    Args:
        tokens: (N,), whole numbers from 0 on.
        vocabulary: V, how many different tokens a model has to tell apart.
        held_out: how many tokens at the end are for validation, a multiple of ``length``.
        length: T, tokens in a window.
        batch_size: windows per batch.
        seed: of offsets and order.
        provenance: where the text comes from.

    Raises:
        ValueError: for an argument out of range, or a text too short for it.
    """

    def __init__(
        self,
        tokens: Tensor,
        vocabulary: int,
        held_out: int,
        *,
        length: int,
        batch_size: int,
        seed: int = 0,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokens, self.length = tokens, checks.whole("length", length, at_least=1)
        self.batch_size = checks.whole("batch_size", batch_size, at_least=1)
        self.seed = checks.whole("seed", seed)
        self.split = len(tokens) - held_out
        self.windows = self.split // length - 1  # as many fit behind the largest offset too
        if self.windows < 1 or held_out < length:
            raise ValueError(
                f"length must be at most half the training text, {max(self.split, 0)} characters, and "
                f"at most the validation text, {held_out}, got {length}"
            )
        self.batches_per_epoch = -(-self.windows // batch_size)
        self.validates = True
        self.metrics = {"bpc": Metric(bits_per_label, higher_is_better=False)}
        self.input_shape, self.output_shape = (length,), (vocabulary, length)
        self.provenance = {"train": self.windows, "val": held_out // length, **(provenance or {})}

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number ``start`` on, each (B, T) and (B, T)."""
        generator = seeded_generator(ORDER, self.seed, epoch)
        offset = torch.randint(self.length, (), generator=generator)
        starts = offset + self.length * torch.randperm(self.windows, generator=generator)
        yield from self._cut(starts[start * self.batch_size :], self.batch_size)

    def validation(self) -> Iterator[Batch]:
        """The validation windows in their own order, in batches eight times the training size."""
        starts = torch.arange(self.split - 1, len(self.tokens) - 1, self.length)
        yield from self._cut(starts, 8 * self.batch_size)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Moves the tokens; they stay whole numbers."""
        self.tokens = place(self.tokens, device, dtype)
        return self

    def _cut(self, starts: Tensor, size: int) -> Iterator[Batch]:
        if not len(starts):
            return
        windows = self.tokens.unfold(0, self.length + 1, 1)  # a view; gathered batch by batch
        for chosen in starts.to(self.tokens.device).split(size):
            window = windows[chosen]
            yield window[:, :-1].contiguous(), window[:, 1:].contiguous()


def text(length: int = 128, batch_size: int = 32, val_fraction: float = 0.1, seed: int = 0) -> Windows:
    """The next character of the help topics of Python itself, ``pydoc_data.topics``.

    465,000 characters in CPython 3.11; other versions hold other text, so that figures compare only
    where the recorded ``sha256`` is the same.

    Args:
        length: T, characters in a window.
        batch_size: windows per batch.
        val_fraction: part of the text that is held out, at its end.
        seed: of offsets and order of the windows.

    Raises:
        ValueError: for an argument out of range, or a Python without these topics.
    """
    return next_character(
        *(topics(), "pydoc_data.topics"),
        length=length,
        batch_size=batch_size,
        val_fraction=val_fraction,
        seed=seed,
    )


def text_file(
    path: str, length: int = 128, batch_size: int = 32, val_fraction: float = 0.1, seed: int = 0
) -> Windows:
    """The next character of a text file in UTF-8.

    Args:
        path: of the file.
        length: T, characters in a window.
        batch_size: windows per batch.
        val_fraction: part of the text that is held out, at its end.
        seed: of offsets and order of the windows.

    Raises:
        ValueError: for an argument out of range, or a file that is missing, too short or not UTF-8.
    """
    return next_character(
        *(decoded(read(path, "text file"), path), str(path)),
        length=length,
        batch_size=batch_size,
        val_fraction=val_fraction,
        seed=seed,
    )


def topics() -> str:
    """The text of all help topics of this Python, in the order of their names."""
    try:
        from pydoc_data.topics import topics as by_name  # here: a file of 700 kB
    except ImportError as error:
        raise ValueError("this Python comes without pydoc_data.topics; use data=text_file") from error
    return "".join(by_name[name] for name in sorted(by_name))


def next_character(
    content: str, source: str, *, length: int, val_fraction: float, **settings: Any
) -> Windows:
    """Windows of a text. The vocabulary is that of its training part, and one more symbol, the last, for
    what is not in it."""
    length = checks.whole("length", length, at_least=1)
    fraction = checks.number("val_fraction", val_fraction, above=0, below=1, remedy="the default is 0.1")
    held_out = length * max(round(len(content) * fraction / length), 1)
    split = max(len(content) - held_out, 0)
    known = {character: token for token, character in enumerate(sorted({*content[:split]}))}
    tokens = torch.tensor([known.get(character, len(known)) for character in content])
    provenance = {
        "source": source,
        "sha256": sha256(content),
        "characters": {"train": split, "val": held_out},
        "unknown": int((tokens == len(known)).sum()),
        "split": "the end of the text held out",
        "normalisation": "none",
        "vocabulary": len(known) + 1,
    }
    return Windows(tokens, len(known) + 1, held_out, length=length, provenance=provenance, **settings)
