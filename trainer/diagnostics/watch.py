"""The diagnostics of a run: what is measured in a sampled step, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer import checks
from trainer.clipping.clipped import Clipped
from trainer.diagnostics.activations import Activations
from trainer.diagnostics.clipping import Culprits, cosine
from trainer.diagnostics.departures import Departures
from trainer.diagnostics.layers import LayerNorms, Numbers, by_prefix, layers_of
from trainer.diagnostics.tensors import buckets, extremes, histogram
from trainer.distributed.sharding import Sharding
from trainer.record import Record


class Diagnostics:
    """Looks into the model in a step now and then; the steps in between cost nothing.

    Everything that is measured stays where it is, and one transfer brings it to the host when the step
    is recorded. A refused step is forgotten.

    Args:
        every: of the logged steps, one of so many is sampled, the first among them; >= 1.
        layers: ``layers/<name>/{grad_norm,weight_norm,update_ratio}`` of each module that holds
            parameters, the early warning (see `Departures`), and which layers make the clip bind. While
            the step is taken there is a second copy of the weights.
        activations: ``activations/<name>/{mean,std,max,dead}``, see `activation_statistics`; not where
            the model is compiled.
        parameters: ``parameters/<name>/{grad_min,grad_max}`` before clipping, and ``grad/cosine`` of
            raw and clipped gradient; takes a copy of the gradient.
        histograms: of each parameter's weights and gradient before clipping, in TensorBoard only.
        shares: ``train/share/<term>``, each loss term's share of the gradient norm, a backward each.
        spike_z: z of the early warning; inf for none.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(
        self,
        every: int = 5,
        layers: bool = True,
        activations: bool = True,
        parameters: bool = False,
        histograms: bool = False,
        shares: bool = False,
        spike_z: float = 8.0,
    ) -> None:
        self.every = checks.whole("every", every, at_least=1)
        self.layers, self.activations = bool(layers), bool(activations)
        self.parameters, self.histograms = bool(parameters), bool(histograms)
        self.shares = bool(shares)
        self.departures, self.culprits = Departures(spike_z), Culprits()
        self.logged, self.skipped = 0, 0.0
        self.sampling = False
        self.raw: list[Tensor] = []
        self.taken: dict[str, list[Tensor]] = {}
        self.present: list[str] = []

    def bind(
        self, model: nn.Module, loss: object, trained: Sequence[Tensor], compiled: bool = False
    ) -> None:
        """Says what to look into; called once, before the first step.

        Args:
            model: whose layers are watched.
            loss: whose parameters are a layer too, where it has any.
            trained: the parameters of the optimizer.
            compiled: whether the model runs compiled, where a hook would not be called.
        """
        modules = by_prefix(model, loss)
        layers = layers_of(modules, trained)
        self.norms = LayerNorms(layers)
        self.outputs = Activations(model if self.activations and not compiled else nn.Identity())
        named = {
            id(parameter): name
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters(prefix)
        }
        self.names = [named[id(parameter)] for parameter in self.norms.parameters]

    def share(self, sharding: Sharding | None) -> None:
        """Says by whom the model is cut up, if it is."""
        if sharding is not None:
            self.norms.rows = sharding.rows
            self.outputs = Activations(sharding.running) if self.outputs.watched else self.outputs

    @property
    def looks_next(self) -> bool:
        """Whether the next step that is recorded will be looked into."""
        wants = self.layers or self.activations or self.parameters or self.histograms or self.shares
        return wants and self.logged % self.every == 0

    def forward(self, due: bool) -> AbstractContextManager[None]:
        """Goes around forward and backward.

        Args:
            due: whether the step will be recorded.
        """
        self.sampling = due and self.looks_next
        self.logged += due
        self.taken = {}
        return self.outputs.watching() if self.sampling and self.outputs.watched else nullcontext()

    @torch.no_grad()
    def before_commit(self) -> None:
        """With the gradients as the backward pass left them."""
        if not self.sampling:
            return
        if self.layers:
            self.norms.before()
        gradients = self._gradients() if self.parameters or self.histograms else []
        if self.parameters:
            self.raw = [gradient.clone() for gradient in gradients]
            self.taken["extremes"] = [extremes(self.raw)]
        if self.histograms:
            self.taken["histograms"] = [histogram(t) for t in (*gradients, *self.norms.parameters)]

    @torch.no_grad()
    def after_commit(self, norm: Tensor, clipped: Clipped, refused: Tensor | bool) -> None:
        """With the weights as the step left them.

        Args:
            norm: of the gradient, before clipping.
            clipped: what the clip did.
            refused: the verdict; a step that is refused is forgotten, at once or when it is read.
        """
        if not self.sampling:
            return
        self.sampling = refused is not True
        if not self.sampling:
            return
        if self.layers:
            self.norms.after()
            self.taken["norms"] = self.norms.take()
        if self.parameters:
            self.taken["cosine"] = [cosine(self.raw, self._gradients())]
            self.raw = []
        self.taken["activations"] = self.outputs.take()
        after = norm if clipped.norm is None else clipped.norm
        after = after if clipped.coefficient is None else norm * clipped.coefficient
        verdict = refused if isinstance(refused, Tensor) else torch.zeros_like(norm)
        self.taken["step"] = [torch.stack((verdict.to(norm.dtype), norm, after.to(norm.dtype)))]

    def read(self, step: int, values: Mapping[str, float], record: Record) -> dict[str, float]:
        """What is to be recorded of the step if it was sampled, brought to the host in one transfer.

        Args:
            step: which.
            values: what is recorded of it besides.
            record: takes what is no number: a warning, histograms.
        """
        if not self.sampling:
            return {}
        self.sampling = False
        rows = self._transfer()
        refused, norm, after = rows["step"]
        if refused:
            return {}
        found: dict[str, float] = {}
        if self.layers:
            layers = self.norms.by_layer(rows["norms"])
            found |= _tags("layers", layers)
            if after < norm:
                self.culprits.add(layers["grad_norm"])
            calm, self.skipped = values["guard/skipped"] == self.skipped, values["guard/skipped"]
            loss = values.get("train/loss", math.nan)
            if line := self.departures(step, layers["update_ratio"], loss, calm):
                record.note(line)
        found |= _tags("activations", self.outputs.by_layer(rows["activations"]))
        if self.parameters:
            least, most = rows["extremes"].reshape(2, -1).tolist()
            bounds = {"grad_min": dict(zip(self.present, least, strict=True))}
            bounds["grad_max"] = dict(zip(self.present, most, strict=True))
            found |= _tags("parameters", bounds) | {"grad/cosine": float(rows["cosine"][0])}
        if self.histograms:
            tags = [f"gradients/{name}" for name in self.present]
            tags += [f"weights/{name}" for name in self.names]
            drawn = map(buckets, rows["histograms"].reshape(len(tags), -1).tolist())
            record.histograms(step, dict(zip(tags, drawn, strict=True)))
        return found

    def summary(self) -> dict[str, Any]:
        """The layers that make the clip bind, and the early warnings; {} where no layer is watched."""
        if not self.layers:
            return {}
        warnings = {"count": self.departures.count, "first": list(self.departures.warnings)}
        return {"clipped_by": self.culprits.top(), "warnings": warnings}

    def state_dict(self) -> dict[str, Any]:
        """Histories, sums, and how many steps were logged."""
        parts = {"departures": self.departures.state_dict(), "culprits": self.culprits.state_dict()}
        return {"logged": self.logged, "skipped": self.skipped, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores all of it."""
        self.logged, self.skipped = state["logged"], state["skipped"]
        self.departures.load_state_dict(state["departures"])
        self.culprits.load_state_dict(state["culprits"])

    def _gradients(self) -> list[Tensor]:
        self.present = [
            n for n, p in zip(self.names, self.norms.parameters, strict=True) if p.grad is not None
        ]
        return [p.grad for p in self.norms.parameters if p.grad is not None]

    def _transfer(self) -> dict[str, Numbers]:
        sizes = [sum(tensor.numel() for tensor in tensors) for tensors in self.taken.values()]
        flat = torch.cat([t.reshape(-1) for tensors in self.taken.values() for t in tensors])
        numbers = flat.double().cpu().numpy()
        return dict(zip(self.taken, np.split(numbers, np.cumsum(sizes)[:-1]), strict=True))


def _tags(group: str, statistics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """``<group>/<name>/<what>``, to six digits: more would only make the record longer."""
    return {
        f"{group}/{name}/{what}": float(f"{value:.6g}")
        for what, values in statistics.items()
        for name, value in values.items()
    }
