"""The TensorBoard view of a run.

Written with TensorBoard's own record writer on a plain file: one event per logged step holds all its
scalars (a `SummaryWriter` writes one event a scalar, through a queue and a thread), and an error
surfaces at the write that caused it, where it can be survived.
"""

from __future__ import annotations

import io
import os
import socket
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor


class TensorBoard:
    """Writes ``events.out.tfevents.*`` into the run folder.

    Args:
        folder: the run folder, which must exist.
    """

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        # Unbuffered: a record that could not be written whole must not stay behind in a buffer.
        self.file = open(folder / name, "ab", buffering=0)
        self.writer = RecordWriter(self.file)
        self.failing = False
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One event with every value."""
        items = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._summary(step, items)

    def images(self, step: int, inputs: Tensor, predictions: Tensor, targets: Tensor) -> None:
        """One picture: inputs over predictions over targets, each (N, C, H, W) in [0, 1]."""
        from PIL import Image

        from trainer.plots import strip

        pixels = strip(inputs.numpy(), predictions.numpy(), targets.numpy())
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, format="PNG")
        height, width, channels = pixels.shape
        image = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png.getvalue()
        )
        self._summary(step, [Summary.Value(tag="val/input_prediction_target", image=image)])

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """The run as a row of the HPARAMS tab: what was chosen, and the metrics it ended with."""
        from torch.utils.tensorboard.summary import hparams

        flat = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in values.items()}
        for summary in hparams(flat, dict(metrics)):
            self._write(Event(wall_time=time.time(), summary=summary))

    def close(self) -> None:
        """Closes the event file."""
        self.file.close()

    def _summary(self, step: int, items: list[Summary.Value]) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=items)))

    def _write(self, event: Event) -> None:
        start = self.file.tell()
        try:
            self.writer.write(event.SerializeToString())
            self.failing = False
        except OSError as error:
            # Half a record would hide every later one from TensorBoard.
            self.file.truncate(start)
            if not self.failing:
                warnings.warn(f"TensorBoard is not written: {error}; training goes on", stacklevel=2)
            self.failing = True
