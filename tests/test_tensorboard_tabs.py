"""Every tab of TensorBoard as a person sees it, in a headless Chromium: pytest -m browser.

TABS_FOLDER=<folder> keeps a picture of each tab there.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from conftest import ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.PROGRAM is None, reason="there is no Chromium"),
]
RUN = [
    "diagnostics=full",
    "clip=norm",
    "loss=combined",
    "trainer.max_steps=40",
    "trainer.log_every=4",
    "hydra.run.dir=run",
]


SWEEP = ["-m", "data=diabetes", "model=mlp", "loss=mse", "trainer.max_steps=40", "hydra.sweep.dir=sweep"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """TensorBoard, serving a short run of the main job."""
    with _served(tmp_path_factory.mktemp("served"), RUN) as address:
        yield address


@contextlib.contextmanager
def _served(folder: Path, arguments: list[str]) -> Iterator[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    train = [sys.executable, str(ROOT / "train.py"), *arguments]
    subprocess.run(train, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = next(folder.glob("*"))
    serve = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", str(port)]
    serve += ["--load_fast=false"]  # which also reads what is there before it answers
    server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield _answering(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(20)


def _answering(address: str) -> str:
    until = time.monotonic() + 60
    while True:
        try:
            tags = urllib.request.urlopen(f"{address}/data/plugin/scalars/tags", timeout=5).read()
            if b"grad/norm" in tags:
                return address
        except OSError:
            assert time.monotonic() < until, "TensorBoard does not answer"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.opened(tmp_path_factory.mktemp("profile")) as page:
        yield page


TABS = {
    "timeseries": ("6 cards", "activations", "guard", "train", "val"),
    "scalars": ("grad", "train", "val"),
    "custom_scalars": ("Stability", "gradient norm", "share of steps clipped", "updates refused"),
    "images": ("val/input_prediction_target",),
    "graphs": ("encoder", "decoder", "head"),
    "histograms": ("gradients/decoder",),  # the first group; others are folded in
    "hparams": ("clip.max_norm", "val/psnr", "val/loss", "digits_denoise"),
}


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_shows_what_the_run_recorded(address: str, page: browser.Browser, tab: str) -> None:
    # An address that differs behind the # alone would not be loaded anew.
    page.open(f"{address}/?darkMode=false&opened={tab}#{tab}")
    text = page.wait_for(*TABS[tab])
    if tab == "hparams":
        shown = re.search(r"\n(\d+)\nval/psnr", text)
        assert shown, text
        assert 5 < int(shown[1]) < 40  # decibels, of a model that has learned for forty steps
    if kept := os.environ.get("TABS_FOLDER"):
        time.sleep(4)  # charts are drawn after their names
        page.picture(Path(kept) / f"{tab}.png")


def test_every_job_of_a_sweep_is_a_row_and_a_line_and_what_was_swept_comes_first(
    tmp_path: Path, page: browser.Browser
) -> None:
    swept = ["optimizer.lr=1e-3,3e-3", "clip.max_norm=0.5,1.5,2.5"]
    with _served(tmp_path, [*SWEEP, *swept]) as address:
        page.open(f"{address}/?darkMode=false&opened=sweep#hparams")
        text = page.wait_for("Trial ID", "val/mae", "2.5000")
        table = text[text.index("Trial ID") :].split("\n")
        assert table[2:5] == ["clip.max_norm", "optimizer.lr", "clip"]  # of all keys five are shown
        assert [row for row in table if row in list("012345")] == list("012345")
        if kept := os.environ.get("TABS_FOLDER"):
            page.picture(Path(kept) / "sweep.png")
        page.open(f"{address}/?darkMode=false&opened=runs#timeseries")
        runs = page.wait_for("Run", "train").split("\n")
        assert [row for row in runs if row in list("012345")][:6] == list("012345")
