"""Every schedule of conf/scheduler in one picture: `python -m benchmarks.schedules`.

Each is built from its own file, warmed up for five epochs where it can be, and driven through a run of
100 epochs of 20 steps as the trainer drives it. The picture shows what the optimizer was given in every
step, over α₀; the validation loss that plateau watches falls for 25 epochs and then no more.
"""

import argparse
from itertools import cycle
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from omegaconf import OmegaConf

from trainer.pictures.drawing import BLUE, GREEN, INK, ORANGE, RED, STYLE, TERMS
from trainer.schedulers import Horizon

ROOT = Path(__file__).parent.parent
EPOCHS, PER_EPOCH, WARMUP = 100, 20, 5
HORIZON = Horizon(EPOCHS * PER_EPOCH, EPOCHS, PER_EPOCH)
COLOURS = (BLUE, ORANGE, GREEN, RED, TERMS[1], "#0B7285", "#A65E00", "#5B4B9A", INK)
COLUMNS, PALE = 3, "#D9D9D9"


def rates(path: Path) -> list[float]:
    """α_t / α₀ in every step of the run."""
    config = OmegaConf.load(path)
    if "warmup" in config:
        config.warmup = WARMUP * PER_EPOCH
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    schedule = hydra.utils.instantiate(config, _convert_="all")(optimizer, horizon=HORIZON)
    drawn = []
    for epoch in range(EPOCHS):
        for _ in range(PER_EPOCH):
            drawn.append(optimizer.param_groups[0]["lr"])
            schedule.step_ended()
        schedule.epoch_ended({"val/loss": max(0.0, 1 - epoch / 25)})
    return drawn


def draw(curves: dict[str, list[float]]) -> Any:
    """A panel for each, all others pale behind it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = -(-len(curves) // COLUMNS)
    epochs = [step / PER_EPOCH for step in range(HORIZON.steps)]
    with rc_context(STYLE):
        figure = Figure(figsize=(10.5, 0.75 + 2.15 * rows), dpi=110, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.07)
        panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (name, own), colour in zip(panels, curves.items(), cycle(COLOURS), strict=False):
            for other in curves.values():
                axes.plot(epochs, other, color=PALE, linewidth=0.8, zorder=1)
            axes.fill_between(epochs, own, color=colour, alpha=0.10, linewidth=0, zorder=2)
            axes.plot(epochs, own, color=colour, linewidth=2.0, zorder=3)
            axes.set_title(f"scheduler={name}", color=colour)
            axes.set(xlim=(0, EPOCHS), ylim=(0, 1.04), xticks=range(0, 101, 25), yticks=(0, 0.5, 1))
        for axes in panels[len(curves) :]:
            axes.set_visible(False)
        figure.supxlabel(f"epoch, of {PER_EPOCH} steps", size=9.5)
        figure.supylabel("learning rate, in units of optimizer.lr", size=9.5)
    return figure


def main() -> None:
    """Draws docs/schedules.png, or the file named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "schedules.png")
    out = parser.parse_args().out
    paths = sorted((ROOT / "conf" / "scheduler").glob("*.yaml"))
    draw({path.stem: rates(path) for path in paths}).savefig(out)
    print(out)


if __name__ == "__main__":
    main()
