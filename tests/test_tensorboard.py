"""The event file, read back by TensorBoard itself, also after the disk was full for a while."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import Disk
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import nn

from trainer import tensorboard
from trainer.console import Console
from trainer.data.tensors import TensorData
from trainer.diagnostics import autograd_graph
from trainer.diagnostics.tensors import buckets, histogram
from trainer.loop import Trainer
from trainer.tasks.train import Job, Train
from trainer.tensorboard import TensorBoard


@pytest.fixture
def board(tmp_path: Path) -> Iterator[TensorBoard]:
    view = TensorBoard(tmp_path)
    yield view
    view.close()


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorBoard]:
    """A view whose file is on a disk that can fill up: set ``.file.left``."""

    def opened(path: Any, mode: str, **options: Any) -> Disk:
        return Disk(path, mode)

    monkeypatch.setattr(tensorboard, "open", opened, raising=False)
    view = TensorBoard(tmp_path)
    yield view
    view.close()


def events(folder: Path) -> list[Any]:
    (path,) = folder.glob("events.out.tfevents.*")
    return list(LegacyEventFileLoader(str(path)).Load())


def accumulated(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def steps(folder: Path) -> list[int]:
    return [event.step for event in events(folder) if event.HasField("summary")]


def test_one_event_a_step_holds_all_its_scalars(tmp_path: Path, board: TensorBoard) -> None:
    for step in (20, 40):
        board.scalars(step, 2, {"train/loss": 0.5 * step, "val/psnr": 13.0})
    version, *logged = events(tmp_path)
    assert version.file_version == "brain.Event:2"
    assert [event.step for event in logged] == [20, 40]
    for event in logged:
        values = {value.tag: value.simple_value for value in event.summary.value}
        assert values == {"train/loss": 0.5 * event.step, "val/psnr": 13.0}


def test_tensorboard_shows_every_curve(tmp_path: Path, board: TensorBoard) -> None:
    losses = [3.5, math.nan, math.inf, 0.25]
    for step, loss in enumerate(losses, 1):
        board.scalars(step, 1, {"train/loss": loss, "lr": 1e300 if step == 2 else 0.5})
    shown = accumulated(tmp_path)
    assert set(shown.Tags()["scalars"]) == {"train/loss", "lr"}
    curve = shown.Scalars("train/loss")
    assert [point.step for point in curve] == [1, 2, 3, 4]
    np.testing.assert_equal([point.value for point in curve], losses)
    assert [point.value for point in shown.Scalars("lr")] == [0.5, math.inf, 0.5, 0.5]


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path, board: TensorBoard) -> None:
    for step in range(1, 4):
        board.scalars(step, 1, {"a": 1.0})
        assert steps(tmp_path)[-1] == step


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pictures_are_one_png_of_inputs_predictions_and_targets(
    tmp_path: Path, board: TensorBoard, channels: int
) -> None:
    rows = [torch.full((4, channels, 8, 8), shade) for shade in (0.0, 0.5, 1.0)]
    board.images(30, *rows)
    (shown,) = accumulated(tmp_path).Images("val/input_prediction_target")
    assert shown.step == 30
    picture = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)).convert("L"))
    assert (shown.height, shown.width) == picture.shape
    thirds = np.array_split(picture, 3)
    assert [int(np.median(third)) for third in thirds] == pytest.approx([0, 127, 255], abs=1)


def test_a_run_is_a_row_of_the_hparams_tab(tmp_path: Path, board: TensorBoard) -> None:
    chosen = {"clip": "norm", "clip.max_norm": 0.5, "seed": 3, "trainer.compile": False}
    typed = ["seed", "trainer.max_steps", "clip.max_norm"]
    board.hparams({**chosen, "model.hidden": [50, 50]}, {"val/psnr": 17.25}, typed)
    content = {
        value.tag: plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in events(tmp_path)
        for value in event.summary.value
    }
    start = content["_hparams_/session_start_info"].session_start_info.hparams
    row = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.items()}
    assert row == {**chosen, "model.hidden": "[50, 50]"}
    experiment = content["_hparams_/experiment"].experiment
    assert [info.name.tag for info in experiment.metric_infos] == ["val/psnr"]
    names = {info.name: info.differs for info in experiment.hparam_infos}
    assert {name for name, differs in names.items() if differs} == {"seed", "clip.max_norm"}
    assert names.keys() == row.keys()


def test_before_after_and_threshold_share_a_chart(tmp_path: Path, board: TensorBoard) -> None:
    board.layout()
    (value,) = events(tmp_path)[-1].summary.value
    assert value.metadata.plugin_data.plugin_name == "custom_scalars"
    layout = layout_pb2.Layout.FromString(value.tensor.string_val[0])
    patterns = [list(chart.multiline.tag) for group in layout.category for chart in group.chart]
    recorded = ["grad/norm", "grad/norm_clipped", "grad/threshold", "grad/norm_max", "train/loss/mse"]
    together = [[tag for tag in recorded if any(re.search(p, tag) for p in one)] for one in patterns]
    assert ["grad/norm", "grad/norm_clipped", "grad/threshold"] in together


def test_the_graph_has_a_box_for_every_module(tmp_path: Path, board: TensorBoard) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    board.graph(autograd_graph(model, torch.ones(2, 3)))
    nodes = {node.name: node for node in GraphDef.FromString(events(tmp_path)[-1].graph_def).node}
    assert {"0/weight", "0/bias", "2/weight", "2/bias"} <= nodes.keys()
    assert {name.partition("/")[0] for name in nodes} == {"0", "1", "2", "output_0"}
    assert all(before in nodes for node in nodes.values() for before in node.input)
    (relu,) = (node for node in nodes.values() if node.op == "Relu")
    assert [nodes[name].op for name in relu.input] == ["Addmm"]


def test_histograms_are_of_what_is_finite(tmp_path: Path, board: TensorBoard) -> None:
    values = histogram(torch.tensor([1.0, math.nan, 3.0]))
    board.histograms(7, {"weights": buckets(values.tolist())})
    shown = accumulated(tmp_path)
    assert shown.Tags()["histograms"] == ["weights"]
    (event,) = shown.Histograms("weights")
    value = event.histogram_value
    assert (event.step, value.num, value.min, value.max) == (7, 2, 1.0, 3.0)


def one_warning(write: Callable[[], None]) -> None:
    with pytest.warns(UserWarning, match=r"No space left on device; training goes on") as caught:
        write()
    assert len(caught) == 1


@pytest.mark.parametrize("left", [0, 1, 7, 8, 12, 13, 30, 60])
def test_a_full_disk_gives_one_warning_and_later_events_are_readable(
    tmp_path: Path, limited: TensorBoard, left: int
) -> None:
    def write(*numbers: int) -> None:
        for step in numbers:
            limited.scalars(step, 1, {"train/loss": float(step), "grad/norm": 1.0})

    write(1, 2)
    limited.file.left = left
    one_warning(lambda: write(3, 4, 5))
    limited.file.left = 2**40
    write(6, 7)
    assert steps(tmp_path) == [1, 2, 6, 7]
    limited.file.left = left
    one_warning(lambda: write(8, 9))
    limited.file.left = 2**40
    write(10)
    assert steps(tmp_path) == [1, 2, 6, 7, 10]


def test_a_disk_that_is_full_from_the_start_does_not_hide_later_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "left", 0)
        patch.setattr(tensorboard, "open", lambda path, mode, **_: Disk(path, mode), raising=False)
        with pytest.warns(UserWarning, match="No space left on device"):
            board = TensorBoard(tmp_path)
    board.scalars(1, 1, {"a": 1.0})
    board.close()
    assert steps(tmp_path) == [1]


def test_a_run_trains_and_records_the_same_on_a_full_disk(tmp_path: Path, limited: TensorBoard) -> None:
    def run(folder: str, views: list[TensorBoard]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        x = torch.randn(20, 3)
        data = TensorData((x, x[:, :1]), (x, x[:, :1]), batch_size=4)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        Trainer(model, nn.MSELoss(), optimizer, max_epochs=4, log_every=2).fit(
            data, tmp_path / folder, views
        )
        return [p.detach().clone() for p in model.parameters()]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        healthy = run("healthy", [])
    limited.file.left = 300  # enough for an event or two
    full: list[torch.Tensor] = []
    one_warning(lambda: full.extend(run("full", [limited])))
    assert all(torch.equal(a, b) for a, b in zip(healthy, full, strict=True))
    records = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("healthy", "full")]
    assert records[0] == records[1]


class OnlyFours(nn.Linear):
    """Takes four samples and no other number while it is trained."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training and len(inputs) != 4:
            raise RuntimeError("four, please")
        return super().forward(inputs)


def test_a_model_that_cannot_be_drawn_has_been_trained_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = torch.randn(8, 3)
    data = TensorData((x, x[:, :1]), (x, x[:, :1]), batch_size=4)
    model = OnlyFours(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, nn.MSELoss(), optimizer, max_epochs=2, log_every=1, device="cpu")
    groups = ("data", "model", "loss", "clip")
    job = Job(Train(), trainer, data, dict.fromkeys(groups, "mine"), {})
    assert job.run(tmp_path, Console())["status"] == "completed"
    assert "TensorBoard shows no graph: four, please" in capsys.readouterr().out
