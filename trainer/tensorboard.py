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
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor

from trainer.diagnostics.graph import Graph, Node

LAYOUT = {
    "Stability": {
        "gradient norm": ["Multiline", ["grad/norm$", "grad/norm_clipped$", "grad/threshold$"]],
        "loss": ["Multiline", ["train/loss$", "val/loss$"]],
        "share of steps clipped": ["Multiline", ["grad/clipped$"]],
        "updates refused": ["Multiline", ["guard/skipped$", "guard/rewound$", "scaler/overflows$"]],
    }
}


class TensorBoard:
    """Writes ``events.out.tfevents.*`` into the run folder.

    Args:
        folder: the run folder, which must exist.
        step: where the run stands; what older event files hold beyond it is not shown.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self.path = folder / name
        self.file: FileIO | None = None
        self.failing = False
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if step:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One event with every value."""
        items = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._summary(step, items)

    def note(self, line: str) -> None:
        """Not here: a line is for whoever is watching."""

    def histograms(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """One event with every histogram, each the fields of a ``HistogramProto``."""
        items = [
            Summary.Value(tag=tag, histo=HistogramProto(**fields)) for tag, fields in values.items()
        ]
        self._summary(step, items)

    def images(self, step: int, inputs: Tensor, predictions: Tensor, targets: Tensor) -> None:
        """One picture: inputs over predictions over targets, each (N, C, H, W) in [0, 1]."""
        from PIL import Image

        from trainer.pictures.strip import strip

        pixels = strip(inputs.numpy(), predictions.numpy(), targets.numpy())
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, format="PNG")
        height, width, channels = pixels.shape
        image = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png.getvalue()
        )
        self._summary(step, [Summary.Value(tag="val/input_prediction_target", image=image)])

    def layout(self) -> None:
        """Charts of the CUSTOM SCALARS tab: lines that are read against each other in one chart."""
        from torch.utils.tensorboard.summary import custom_scalars

        self._write(Event(wall_time=time.time(), summary=custom_scalars(LAYOUT)))

    def graph(self, graph: Graph) -> None:
        """The GRAPHS tab: what autograd recorded, in boxes by module."""
        names = [_scoped(number, node) for number, node in enumerate(graph.nodes)]
        inputs: dict[int, list[str]] = {}
        for before, after in graph.edges:
            inputs.setdefault(after, []).append(names[before])
        nodes = [
            NodeDef(name=name, op=node.label.rpartition(".")[2], input=inputs.get(number, []))
            for number, (name, node) in enumerate(zip(names, graph.nodes, strict=True))
        ]
        content = GraphDef(node=nodes).SerializeToString()
        self._write(Event(wall_time=time.time(), graph_def=content))

    def hparams(
        self, values: Mapping[str, Any], metrics: Mapping[str, float], differs: Sequence[str] = ()
    ) -> None:
        """The run as a row of the HPARAMS tab: what was chosen, and the metrics it ended with.

        Args:
            values: what was chosen, by key.
            metrics: what it ended with, by tag.
            differs: the keys that runs shown beside each other differ in; the tab begins with them, of
                all keys it shows five, and others when asked to.
        """
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        flat = {k: v if isinstance(v, bool | int | float) else str(v) for k, v in values.items()}
        experiment, *others = hparams(flat, dict(metrics))
        stored = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(stored.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in differs
        stored.content = content.SerializeToString()
        for summary in (experiment, *others):
            self._write(Event(wall_time=time.time(), summary=summary))

    def close(self) -> None:
        """Closes the event file."""
        if self.file is not None:
            self.file.close()

    def _summary(self, step: int, items: list[Summary.Value]) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=items)))

    def _write(self, event: Event) -> None:
        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        try:
            self._append(record.getvalue())
            self.failing = False
        except OSError as error:
            if not self.failing:
                warnings.warn(f"TensorBoard is not written: {error}; training goes on", stacklevel=2)
            self.failing = True

    def _append(self, record: bytes) -> None:
        """The whole record or nothing: half of one would hide every later one from TensorBoard."""
        if self.file is None:
            # Unbuffered: what could not be written must not stay behind in a buffer.
            self.file = open(self.path, "ab", buffering=0)
        end = self.file.seek(0, os.SEEK_END)  # after a truncation the position is beyond the end
        try:
            left = memoryview(record)
            while left:  # an unbuffered write may take a part and say so only in its answer
                left = left[self.file.write(left) :]
        except OSError:
            self.file.truncate(end)
            raise


def _scoped(number: int, node: Node) -> str:
    """A name that TensorBoard sorts into boxes: a / between modules, and letters that it takes."""
    path = "/".join([*filter(None, node.module.split(".")), node.label.rpartition(".")[2]])
    return path if node.kind == "parameter" else f"{path}_{number}"
