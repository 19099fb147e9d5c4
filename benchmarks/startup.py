"""Start-up of a whole process, from the shell to one step: `python -m benchmarks.startup`.

Two commands take turns, A B A B …, and are timed from outside, interpreter and imports
included:

bare     a script of a few lines that imports torch and hydra, composes one small yaml with
         `@hydra.main`, builds the MLP 10-50-50-1 and takes a single fused Adam step
trimtab  `python train.py trainer.max_steps=1 data=random model=mlp`

The bar is the median of the ratios trimtab / bare, formed pair by pair after a warm-up. Both
write their run folders into a temporary folder, and neither sees a GPU.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.tables import Part, shown, timed
from benchmarks.timing import Bar, Entry, attempt, command_seconds, interleave

ROOT = Path(__file__).resolve().parents[1]
BAR = Bar("trimtab / bare", 1.3, at_least=False)

BARE_CONFIG = """\
lr: 1e-3
features: 10
hidden: 50
"""

BARE_SCRIPT = """\
import hydra
import torch
from torch import nn


@hydra.main(version_base=None, config_path=".", config_name="bare")
def main(config):
    model = nn.Sequential(
        nn.Linear(config.features, config.hidden),
        nn.ReLU(),
        nn.Linear(config.hidden, config.hidden),
        nn.ReLU(),
        nn.Linear(config.hidden, 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    inputs, targets = torch.randn(32, config.features), torch.randn(32, 1)
    nn.functional.mse_loss(model(inputs), targets).backward()
    optimizer.step()


main()
"""


def taken(command: list[str], folder: Path) -> float:
    """Seconds a Python command takes, its Hydra run folder placed inside `folder`."""
    run = tempfile.mkdtemp(dir=folder)
    return command_seconds([*command, f"hydra.run.dir={run}"], ROOT)


def contenders(folder: Path) -> list[Entry]:
    """The two commands, with the bare script written into `folder`."""
    script = folder / "bare.py"
    script.write_text(BARE_SCRIPT)
    (folder / "bare.yaml").write_text(BARE_CONFIG)
    ours = ["train.py", "trainer.max_steps=1", "data=random", "model=mlp"]
    return [
        Entry("bare", lambda _: taken([str(script)], folder)),
        Entry("trimtab", lambda _: taken(ours, folder)),
    ]


def measure(rounds: int = 7) -> Iterator[Part]:
    """Seconds of both commands."""
    with tempfile.TemporaryDirectory() as folder:
        entries = contenders(Path(folder))
        for entry in entries:
            attempt(entry, 1)
        interleave(entries, rounds)
    yield timed("Start-up to the first step", entries, "seconds", 1, [BAR])


def main() -> int:
    """Measure and print; the status is 1 only when a command failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="pairs of starts")
    return shown(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    raise SystemExit(main())
