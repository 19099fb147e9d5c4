"""Trains, or whatever else ``task=`` names: ``python train.py clip=norm loss=combined``.

Composes the config, hands it to `trainer.build`, and turns the outcome into an exit code: 0 done, 1
failed or diverged, 2 bad input, 128 + n stopped by signal n.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

STARTED: list[DictConfig] = []
FAILED: list[bool] = []


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(config: DictConfig) -> float | None:
    """One job; returns the value of its objective to Hydra."""
    from trainer import build  # torch takes a second, which help and a typo need not wait for

    STARTED.append(config)
    summary = build.run(config)
    if summary["status"] == "interrupted":  # and with it the rest of a sweep
        raise SystemExit(128 + signal.Signals[summary["reason"]])
    # A diverged job of a sweep is a finding, which its objective tells; alone it is a failure.
    FAILED.append(summary["status"] != "completed" and HydraConfig.get().mode == RunMode.RUN)
    value: float | None = summary["objective"]["value"]
    return value


def main() -> int:
    """Runs the command line; returns the exit code."""
    full_error = os.environ.setdefault("HYDRA_FULL_ERROR", "0") == "1"
    # Lets Hydra raise what it would otherwise print with a traceback, and exit 1 for everything.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        job()
    except SystemExit as stop:
        if not isinstance(stop.code, str):
            raise
        print(f"train.py: {stop.code}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        if full_error or STARTED:
            traceback.print_exc()
            return 1
        print(f"train.py: {error}", *filter(None, [error.__cause__]), sep="\n", file=sys.stderr)
        return 2
    return int(any(FAILED))


if __name__ == "__main__":
    sys.exit(main())
