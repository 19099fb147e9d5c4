"""The graph that autograd walks backwards, with the names of parameters and modules."""

from __future__ import annotations

import html
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.diagnostics.untouched import untouched

FILL = {"parameter": "#CFE8F5", "operation": "#FFFFFF", "output": "#D5EFE3", "input": "#FBE7C2"}


@dataclass(frozen=True, slots=True)
class Node:
    """An operation, a parameter, or the output.

    Attributes:
        label: the operation, or the name of the parameter.
        kind: "operation", "parameter", "input" or "output".
        module: the name of the module it was done in; "" for the model itself.
        shape: of a parameter, or of the output.
    """

    label: str
    kind: str
    module: str = ""
    shape: tuple[int, ...] | None = None


@dataclass(slots=True)
class Graph:
    """Nodes, and edges (from, to) in the direction of the forward pass, by their numbers."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def dot(self) -> str:
        """The graph in Graphviz's language, a box around each module."""
        lines = ["digraph {", '  graph [fontname="Helvetica", fontsize=11, ranksep=0.3, nodesep=0.25]']
        lines.append('  node [fontname="Helvetica", fontsize=10, shape=box, style=filled, height=0.25]')
        by_module: dict[str, list[int]] = {}
        for number, node in enumerate(self.nodes):
            by_module.setdefault(node.module, []).append(number)
        for index, (module, numbers) in enumerate(by_module.items()):
            inner = [self._node(number) for number in numbers]
            if module:
                look = f'label="{module}"; labeljust=l; color="#BBBBBB"; style=rounded'
                lines += [f"  subgraph cluster_{index} {{ {look}", *inner, "  }"]
            else:
                lines += inner
        lines += [f"  n{a} -> n{b}" for a, b in self.edges]
        return "\n".join([*lines, "}"]) + "\n"

    def _node(self, number: int) -> str:
        node = self.nodes[number]
        words = [node.label.rpartition(".")[2] if node.module else node.label]
        if node.shape is not None:
            words.append(" × ".join(map(str, node.shape)) or "scalar")
        label = "<br/>".join(map(html.escape, words))
        return f'    n{number} [label=<{label}>, fillcolor="{FILL[node.kind]}"]'

    def write(self, folder: Path) -> tuple[list[Path], str]:
        """Writes graph.dot, and graph.svg and graph.png where Graphviz is installed.

        Returns:
            The files, and what is to be said if there is no picture.
        """
        path = folder / "graph.dot"
        path.write_text(self.dot(), encoding="utf-8")
        program = shutil.which("dot")
        if program is None:
            remedy = "install it (apt install graphviz, brew install graphviz)"
            return [path], f"graph.svg needs Graphviz; {remedy}, then dot -Tsvg -O {path}"
        pictures = [folder / "graph.svg", folder / "graph.png"]
        targets = [word for p in pictures for word in (f"-T{p.suffix[1:]}", f"-o{p}")]
        done = subprocess.run([program, *targets, path], capture_output=True, text=True)
        if done.returncode:
            return [path], f"graph.svg is not drawn: {done.stderr.strip().splitlines()[-1]}"
        return [path, *pictures], ""


def autograd_graph(model: nn.Module, inputs: Tensor) -> Graph:
    """What autograd recorded of one forward pass in training mode; the model is not changed.

    Args:
        model: called with the inputs.
        inputs: (B, …), B >= 2 where the model has BatchNorm.

    Returns:
        The graph; without nodes where no parameter that requires a gradient is in the output.

    Example:
        >>> graph = autograd_graph(nn.Linear(3, 2), torch.ones(4, 3))
        >>> [node.label for node in graph.nodes]
        ['output', 'Addmm', 'bias', 'T', 'weight']
    """
    modules: dict[Any, str] = {}  # keeps the functions alive, so that each stays one object
    hooks = [
        module.register_forward_hook(partial(_name_functions, modules, name))
        for name, module in model.named_modules()
    ]
    try:
        with untouched(model), torch.enable_grad():
            output = model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [tensor for tensor in _tensors(output) if tensor.grad_fn is not None]
    names = {parameter: name for name, parameter in model.named_parameters()}
    graph, numbers = Graph(), dict[Any, int]()
    for tensor in outputs:
        graph.nodes.append(Node("output", "output", shape=tuple(tensor.shape)))
        _add(graph, numbers, tensor.grad_fn, len(graph.nodes) - 1, modules, names)
    return graph


def _add(
    graph: Graph,
    numbers: dict[Any, int],
    start: Any,
    target: int,
    modules: dict[Any, str],
    names: Mapping[Any, str],
) -> None:
    """Everything that leads to a function, which leads to the target."""
    waiting = [(start, target)]
    while waiting:
        function, after = waiting.pop(0)
        known = function in numbers
        if not known:
            numbers[function] = len(graph.nodes)
            graph.nodes.append(_node(function, modules, names))
        graph.edges.append((numbers[function], after))
        if not known:
            before = [one for one, _ in function.next_functions if one is not None]
            waiting += [(one, numbers[function]) for one in before]


def _node(function: Any, modules: dict[Any, str], names: Mapping[Any, str]) -> Node:
    variable = getattr(function, "variable", None)
    if variable is None:
        return Node(
            type(function).__name__.partition("Backward")[0], "operation", modules.get(function, "")
        )
    name = names.get(variable)
    shape = tuple(variable.shape)
    if name is None:
        return Node("input", "input", "", shape)
    return Node(name, "parameter", name.rpartition(".")[0], shape)


def _name_functions(
    modules: dict[Any, str], name: str, _: nn.Module, inputs: tuple[Any, ...], output: Any
) -> None:
    """Whatever lies between a module's inputs and outputs, and was done in none of its children."""
    stop = {tensor.grad_fn for tensor in _tensors(inputs)}
    waiting = [tensor.grad_fn for tensor in _tensors(output)]
    while waiting:
        function = waiting.pop()
        if function is None or function in stop or hasattr(function, "variable"):
            continue
        stop.add(function)
        modules.setdefault(function, name)
        waiting += [before for before, _ in function.next_functions]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from _tensors(item)
