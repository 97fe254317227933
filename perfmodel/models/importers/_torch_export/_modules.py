"""Modules that are one function but were traced into their parts: RMS norms and activations that a library spells out."""

import re
from typing import NamedTuple

from ._read import Argument, Graph, Node

_KNOWN = (
    (re.compile(r"RMSNorm$"), "rms_norm"), (re.compile(r"LayerNorm(2d)?$|LayerNormalization$"), "layer_norm"),
    (re.compile(r"(GELU|Gelu)\w*$"), "gelu"), (re.compile(r"(SiLU|Swish)\w*$"), "silu"),
)  # fmt: skip
_OF_ONE_ARRAY = re.compile(
    r"^(add|sub|rsub|mul|div|pow|mean|var|std|rsqrt|sqrt|square|tanh|erf|sigmoid|exp|neg|reciprocal|to|to_copy|type_as|float|"
    r"assert_tensor_metadata|view|reshape|unsqueeze|squeeze|expand|clone|contiguous|detach|alias|sum|dropout)$"
)
_VIEW = re.compile(r"^(to|to_copy|assert_tensor_metadata|view|reshape|alias|detach|contiguous|clone|type_as|float)$")


class Item(NamedTuple):
    """Nodes that become one row of `kind` that reads `reads` and makes `result`; no kind: a single node."""

    nodes: list[Node]
    kind: str = ""
    label: str = ""
    reads: tuple[str, ...] = ()
    result: str = ""


def grouped(graph: Graph) -> list[Item]:
    """The nodes of a graph in order, those of one known module together."""
    last_reader: dict[str, int] = {}
    for i, node in enumerate(graph.nodes):
        for given in node.inputs:
            for name in _tensors(given.arg):
                last_reader[name] = i
    for argument in graph.outputs:
        for name in _tensors(argument):
            last_reader[name] = len(graph.nodes)
    items: list[Item] = []
    i = 0
    while i < len(graph.nodes):
        path, kind = _module(graph.nodes[i])
        end = i + 1
        if kind:
            while end < len(graph.nodes) and _module(graph.nodes[end]) == (path, kind):
                end += 1
        start = i
        while start < end and _VIEW.match(_short(graph.nodes[start].target)):  # somebody else may read these as well
            start += 1
        item = _as_one(graph.nodes[start:end], start, kind, path, last_reader) if end - start > 1 else None
        items += [Item([node]) for node in graph.nodes[i : start if item else end]]
        items += [item] if item else []
        i = end
    return items


def _as_one(nodes: list[Node], start: int, kind: str, path: str, last_reader: dict[str, int]) -> Item | None:
    """The nodes as one row, where they are arithmetic only and one tensor leaves them."""
    if not all(_OF_ONE_ARRAY.match(_short(node.target)) for node in nodes):
        return None
    made = [name for node in nodes for argument in node.outputs for name in _tensors(argument)]
    leaving = [name for name in made if last_reader.get(name, -1) >= start + len(nodes)]
    if len(leaving) != 1:
        return None
    inside = set(made)
    reads = dict.fromkeys(n for node in nodes for given in node.inputs for n in _tensors(given.arg) if n not in inside)
    return Item(nodes, kind, path, tuple(reads), leaving[0])


def _short(target: str) -> str:
    words = target.split(".")
    return (words[3] if words[:2] == ["torch", "ops"] and len(words) >= 4 else words[-1]).strip("_")


def _module(node: Node) -> tuple[str, str]:
    """(path, kind) of the innermost module that a node belongs to; no kind: not a known one."""
    words = str(node.metadata.get("nn_module_stack", "")).rsplit(";", 1)[-1].split(",")
    if len(words) != 3 or not re.fullmatch(r"[\w.]{1,200}", words[1]):
        return "", ""
    return words[1], next((kind for pattern, kind in _KNOWN if pattern.search(words[2])), "")


def _tensors(argument: Argument) -> list[str]:
    if argument.as_tensor:
        return [argument.as_tensor.name]
    return [tensor.name for tensor in argument.as_tensors or []]
