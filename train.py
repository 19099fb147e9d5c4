"""Trains, or whatever else ``task=`` names: ``python train.py clip=norm loss=combined``.

Composes the config, hands it to `trainer.build`, and turns the outcome into an exit code: 0 done, 1
failed or diverged, 2 bad input, 128 + n stopped by signal n.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import hydra
from omegaconf import DictConfig

from trainer.explain import config_error

CONF = str(Path(__file__).parent.resolve() / "conf")
EXIT_CODES: list[int] = []  # of the jobs that this process started


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def job(config: DictConfig) -> float | None:
    """One job; returns the value of its objective to Hydra."""
    EXIT_CODES.append(1)  # should it raise
    from trainer import build  # torch takes a second, which help and a typo need not wait for

    outcome = build.run(config)
    EXIT_CODES[-1] = outcome.exit_code
    if outcome.exit_code > 128:  # a signal ends the rest of a sweep too
        raise SystemExit(outcome.exit_code)
    return outcome.objective


def main() -> int:
    """Runs the command line; returns the exit code."""
    EXIT_CODES.clear()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Makes Hydra raise its errors, which it would otherwise print itself and exit 1 for all of them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        job()
    except SystemExit as stop:
        if isinstance(stop.code, str):  # build.BadInput
            print(f"train.py: {stop.code}", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if wants_traceback or EXIT_CODES:
            traceback.print_exc()
            return 1
        print(f"train.py: {config_error(error)}", file=sys.stderr)
        return 2
    return max(EXIT_CODES, default=0)


if __name__ == "__main__":
    sys.exit(main())
