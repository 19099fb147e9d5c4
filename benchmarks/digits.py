"""What the main job is measured against: the noisy digits and the best classical reconstruction.

``python -m benchmarks.digits`` prints the validation PSNR of the noisy input, of the best projection
on principal components of the clean training images (every number of components is tried, on the
validation images themselves, which favours it), and of the U-Net that ``python train.py`` trains.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from sklearn.decomposition import PCA
from torch import Tensor, from_numpy

from trainer.data.digits import digits_denoise
from trainer.metrics import psnr


def best_pca(train: Tensor, noisy: Tensor, clean: Tensor) -> tuple[float, int]:
    """The best PSNR in dB and its number of components; images are (N, 1, 8, 8)."""
    best = (0.0, 0)
    for components in range(1, 65):
        pca = PCA(components).fit(train.flatten(1).numpy())
        flat = pca.inverse_transform(pca.transform(noisy.flatten(1).numpy())).clip(0, 1)
        restored = from_numpy(flat).reshape(clean.shape).float()
        best = max(best, (psnr(restored, clean).mean().item(), components))
    return best


def main() -> None:
    """Prints the three figures."""
    data = digits_denoise()
    noisy, clean = data.val
    pca, components = best_pca(data.train[1], noisy, clean)
    print(f"noisy input                   {psnr(noisy, clean).mean().item():.1f} dB")
    print(f"PCA, best of 64 ({components:2d} components) {pca:.1f} dB")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "clip=norm", "loss=combined"]
        subprocess.run([*command, f"hydra.run.dir={folder}"], check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((Path(folder) / "summary.json").read_text())
    value, seconds = summary["objective"]["value"], summary["seconds"]
    print(f"U-Net                         {value:.1f} dB, trained in {seconds:.0f} s")


if __name__ == "__main__":
    main()
