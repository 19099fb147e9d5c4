"""The usual script that our sweeps are measured against: Hydra's -m over Lightning's Trainer."""

LIGHTNING = """\
import logging
import warnings

import hydra
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.model = nn.Sequential(
            nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 1)
        )

    def training_step(self, batch, index):
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", nn.functional.mse_loss(self.model(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def loader(rows, shuffle):
    return DataLoader(TensorDataset(torch.randn(rows, 10), torch.randn(rows, 1)), 32, shuffle=shuffle)


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    pl.seed_everything(0, verbose=False)
    folder = hydra.core.hydra_config.HydraConfig.get().runtime.output_dir
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=config.epochs,
        gradient_clip_val=config.max_norm,
        logger=TensorBoardLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(config.lr), loader(1000, True), loader(200, False))
    return float(trainer.callback_metrics["val_loss"])


main()
"""
