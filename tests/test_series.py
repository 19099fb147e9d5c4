"""The record as arrays."""

import json
from pathlib import Path

from trainer.series import read_series


def test_a_step_walked_twice_counts_as_the_second_time(tmp_path: Path) -> None:
    values = [(1, 5.0), (2, 6.0), (3, 7.0), (2, 1.0), (3, 2.0)]
    lines = [json.dumps({"step": step, "train/loss": value}) + "\n" for step, value in values]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"step": 4, "tra', encoding="utf-8")
    series, logged = read_series(tmp_path / "metrics.jsonl")
    steps, losses = series["train/loss"]
    assert logged == 3
    assert steps.tolist() == [1, 2, 3]
    assert losses.tolist() == [5.0, 1.0, 2.0]
