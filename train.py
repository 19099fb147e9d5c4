"""Trains, or whatever else ``task=`` names: ``python train.py clip=norm loss=combined``.

Exit codes: 0 done, 1 failed or diverged, 2 bad input, 128 + n stopped by signal n."""

from __future__ import annotations

import gc
import os
import sys

import hydra
from omegaconf import DictConfig

from trainer.distributed.torchrun import expanded
from trainer.explain import config_error

CONF = os.path.join(os.path.dirname(os.path.realpath(__file__)), "conf")
EXIT_CODES: list[int] = []  # of the jobs that this process started


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def job(config: DictConfig) -> float | None:
    """One job; returns the value of its objective to Hydra."""
    EXIT_CODES.append(1)  # should it raise
    from trainer import hooks  # torch takes a second, which help and a typo need not wait for

    EXIT_CODES[-1], objective = hooks.run(config)
    if EXIT_CODES[-1] > 128:  # a signal ends the rest of a sweep too
        raise SystemExit(EXIT_CODES[-1])
    return objective


def main() -> int:
    """Runs the command line; returns the exit code."""
    EXIT_CODES.clear()
    gc.disable()  # until `hooks` is there: a third of importing torch would be collections in vain
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra would print its errors itself, and exit 1 for all
    try:
        sys.argv[1:] = expanded(sys.argv[1:])
        job()
    except SystemExit as stop:
        if isinstance(stop.code, str):  # build.BadInput
            print(f"train.py: {stop.code}", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if "trainer.hooks" in sys.modules and sys.modules["trainer.hooks"].sweep_broke(error):
            return 1
        if wants_traceback or (EXIT_CODES and not isinstance(error, OSError)):
            sys.excepthook(type(error), error, error.__traceback__)
            return 1
        print(f"train.py: {config_error(error)}", file=sys.stderr)
        return 1 if EXIT_CODES else 2
    return max(EXIT_CODES, default=0)


if __name__ == "__main__":
    sys.exit(main())
