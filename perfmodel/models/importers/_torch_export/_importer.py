"""Programs of `torch.export` as workloads: nodes of the graph become rows, tensor metadata says their shapes."""

import re
from math import prod
from typing import Any

from ....workload._dtypes import Precision, precision
from ....workload._graph import Workload
from .._sketch import Sketch
from .._sketch_ops import constant, vector
from .._sketch_value import Value, scaled
from ._modules import grouped
from ._ops import HANDLERS, Call
from ._read import SCALARS, Argument, Graph, Node, Program, TensorMeta, read_program
from ._symbols import Symbols

_WRAPPERS = (
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
    "wrap",
    "checkpoint",
    "tag_activation_checkpoint",
    "invoke_subgraph",
)
_DEEPEST = 50  # graphs inside graphs


def import_torch(program: Any, *, batch: int | None = None, bind: dict[str, int] | None = None, dtype: str | None = None,
                 weight_dtype: str | None = None, name: str | None = None) -> Workload:  # fmt: skip
    """The program in a `.pt2` file that `torch.export.save` has written, or a live `torch.export.ExportedProgram`.

    PyTorch is not needed to read a file, and its weights are not read.

    **Arguments:**
    - `batch`: size of the first axis of the first input, where the program leaves it open.
    - `bind`: open sizes by symbol (`{"s77": 4}`) or by place (`{"x[1]": 128}`). What stays open has the size of the example
      that the program was exported with, with an `ImportedModelWarning` that names it.
    - `dtype`, `weight_dtype`: number format of floating-point activations and parameters instead of the file's.
    - `name`: of the model; default: the file's.

    Parameters, and buffers that are quantised (8 bits) or of floating point with two or more axes, are stored; other buffers
    (running statistics, masks, tables of positions) are read from memory where somebody reads them. A module that is a known
    function (`LlamaRMSNorm`, `NewGELUActivation`, ...) but was traced into its parts is one row again. Attention
    (`scaled_dot_product_attention`) is three rows and counts in full, its mask is free. Views cost nothing; a transposition is free
    too. Operators that are not known are data movement, with a warning that names them.

    Raises ValueError in one line naming the file and the node for whatever cannot be read.
    """
    file, stem, read, stored = read_program(program)
    activation = None if dtype is None else precision(dtype)
    weight = activation if weight_dtype is None else precision(weight_dtype, "weight_dtype")
    if any(chosen and chosen.density != 1 for chosen in (activation, weight)):
        raise ValueError(
            f"dtype is {dtype!r}, weight_dtype {weight_dtype!r}; allowed for exported programs: dense formats"
        )
    importer = Importer(file, Sketch(name or stem or "model"), read, stored, activation, weight)
    try:
        return importer.run(bind, batch)
    except (ValueError, OverflowError) as error:
        said = " ".join(str(error).split())
        raise ValueError(said if said.startswith(f"{file}: ") else f"{file}: {said}") from None


class Importer:
    """The state of one import."""

    def __init__(self, file: str, sketch: Sketch, program: Program, stored: dict[str, str], activation: Precision | None,
                 weight: Precision | None):  # fmt: skip
        self.file, self.sketch, self.program, self.stored = file, sketch, program, stored
        self.activation, self.weight = activation, weight
        self.symbols: Symbols
        self.depth = 0

    def run(self, bind: dict[str, int] | None, batch: int | None) -> Workload:
        graph, signature = self.program.graph_module.graph, self.program.graph_module.signature
        leaves: dict[str, str] = {}  # variable -> name of the parameter
        tables: dict[str, str] = {}
        for spec in signature.input_specs:
            if spec.parameter:
                leaves[spec.parameter.arg.name] = spec.parameter.parameter_name
            elif spec.buffer:
                tables[spec.buffer.arg.name] = spec.buffer.buffer_name
            elif spec.tensor_constant:
                tables[spec.tensor_constant.arg.name] = spec.tensor_constant.tensor_constant_name
        names = [argument.as_tensor.name for argument in graph.inputs if argument.as_tensor]
        user = [name for name in names if name not in leaves and name not in tables]
        metas = [(name, self._meta(graph, name).sizes) for name in user]
        self.symbols = Symbols(self.file, metas, bind, batch)
        env: dict[str, Value] = {}
        shared: dict[str, Value] = {}  # tied parameters lie in one place
        for name in names:
            value = self.blank(graph, name)
            if value.elements == 0 and name in user:
                raise ValueError(
                    f"{self.file}: input {name!r} has the shape {value.shape}; every size must be at least 1"
                )
            label = leaves.get(name) or tables.get(name)
            if label is None:
                env[name] = self.sketch.outside(value.shape, value.kind, value.bits)
            elif (
                name in leaves
                or value.kind == "int"
                and value.bits == 8
                or value.kind == "float"
                and len(value.shape) > 1
            ):
                place = self.stored.get(label) or label
                if place not in shared:
                    bits = self.weight.bits if self.weight and value.kind == "float" else value.bits
                    shared[place] = self.sketch.leaf(label, value.shape, value.kind, bits)
                env[name] = shared[place]._replace(shape=value.shape)
            else:
                env[name] = self.sketch.outside(value.shape, value.kind, value.bits)
        if self.symbols.free:
            said = ", ".join(
                f"{s} = {self.symbols.values[s]} ({self.symbols.where[s]})" for s in self.symbols.free[:20]
            )
            self.sketch.warn(f"sizes that are not bound are those of the exported example: {said}")
        outputs = self.graph(graph, env)
        first = next((env[name].shape[0] for name in user if env[name].shape), 1)
        return self.sketch.build(outputs, first)

    def graph(self, graph: Graph, env: dict[str, Value]) -> list[Value]:
        """Walk a graph whose inputs are in `env`. Returns its outputs."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError(f"{self.file}: graphs inside graphs are more than {_DEEPEST} deep")
        for item in grouped(graph):
            node = item.nodes[0]
            try:
                if item.kind:
                    reads = [env[name] for name in item.reads if name in env]
                    env[item.result] = vector(self.sketch, item.label, item.kind, reads, self.blank(graph, item.result))
                else:
                    self._node(graph, node, env)
            except (KeyError, IndexError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
                said = " ".join(str(error).split())
                if said.startswith(f"{self.file}: "):
                    raise
                what = f"{said!r} is missing" if isinstance(error, KeyError) else said
                raise ValueError(f"{self.file}: node {node.target!r} cannot be read: {what}") from None
        self.depth -= 1
        names = [name for argument in graph.outputs for name in tensors_of(argument)]
        missing = next((name for name in names if name not in env), None)
        if missing is not None:
            raise ValueError(f"{self.file}: output {missing!r} is made by no node")
        return [env[name] for name in names]

    def _node(self, graph: Graph, node: Node, env: dict[str, Value]) -> None:
        outputs = [name for argument in node.outputs for name in tensors_of(argument)]
        if not outputs:  # assertions, sizes
            return
        namespace, operator = _operator(node.target)
        inputs = {f"{i}" if not given.name else given.name: given.arg for i, given in enumerate(node.inputs)}
        outs = [self.blank(graph, name) for name in outputs]
        if namespace == "higher_order":
            made = self._higher(operator, list(inputs.values()), outs, env)
        else:
            call = Call(self.sketch, operator.strip("_"), _label(node, operator), inputs, env, outs)
            handler = HANDLERS.get(call.name)
            if handler is None:
                self.sketch.warn(
                    f"operator {node.target.removeprefix('torch.ops.')!r} is not known: modelled as data movement"
                )
                handler = HANDLERS["unknown"]
            made = handler(call)
            if operator.endswith("_") and not operator.startswith("_") and node.inputs[0].arg.as_tensor and made:
                env[node.inputs[0].arg.as_tensor.name] = made[0]  # later readers see what was written in place
        env.update(zip(outputs, made, strict=False))
        for name, out in zip(outputs, outs, strict=True):
            env.setdefault(name, constant(out))

    def _higher(
        self, operator: str, arguments: list[Argument], outs: list[Value], env: dict[str, Value]
    ) -> list[Value]:
        """Operators that hold graphs: wrappers, branches (the costlier one), loops (once)."""
        graphs = [argument.as_graph.graph for argument in arguments if argument.as_graph]
        values = [env[name] for argument in arguments for name in tensors_of(argument)]
        if operator in _WRAPPERS and len(graphs) == 1:
            taken = graphs[0]
        elif operator == "cond" and len(graphs) == 2:
            costs = [self._cost(graph) for graph in graphs]
            taken, values = graphs[costs.index(max(costs))], values[1:] if arguments[0].as_tensor else values
            self.sketch.warn("cond: which branch runs is not known: the costlier is taken")
        elif operator == "while_loop" and len(graphs) == 2:
            taken = graphs[1]
            self.sketch.warn("while_loop: how often it runs is not known: taken once")
        else:
            self.sketch.warn(f"operator 'higher_order.{operator}' is not known: modelled as data movement")
            return HANDLERS["unknown"](Call(self.sketch, operator, operator, dict(enumerate(arguments)), env, outs))  # type: ignore
        names = [name for argument in taken.inputs for name in tensors_of(argument)]
        inner = dict(zip(names, values[-len(names) :] if names else [], strict=True))
        made = self.graph(taken, inner)
        return [out._replace(parts=scaled(value.parts, 1)) for out, value in zip(outs, made, strict=False)]

    def _cost(self, graph: Graph) -> int:
        """About the work of a branch: elements made, in products times the depth."""
        total = 0
        for node in graph.nodes:
            shapes = [self.blank(graph, n).shape for a in node.outputs for n in tensors_of(a)]
            deep = 1
            if re.search(r"\.(linear|addmm|mm|bmm|matmul|conv\w*|scaled_dot\w*)\.", node.target):
                first = next(
                    (n for given in node.inputs for n in tensors_of(given.arg) if n in graph.tensor_values), None
                )
                deep = max(self.blank(graph, first).shape[-1:], default=1) if first else 1
            total += deep * sum(prod(shape) for shape in shapes)
            total += sum(self._cost(given.arg.as_graph.graph) for given in node.inputs if given.arg.as_graph)
        return total

    def _meta(self, graph: Graph, name: str) -> TensorMeta:
        if name not in graph.tensor_values:
            raise ValueError(f"{self.file}: tensor {name!r} has no shape")
        return graph.tensor_values[name]

    def blank(self, graph: Graph, name: str) -> Value:
        """A value of the shape and format that the program declares."""
        meta = self._meta(graph, name)
        if meta.dtype not in SCALARS:
            raise ValueError(
                f"{self.file}: tensor {name!r} has the dtype {meta.dtype}; allowed: {', '.join(map(str, SCALARS))}"
            )
        kind, bits = SCALARS[meta.dtype]
        if self.activation and kind == "float":
            bits = self.activation.bits
        return Value(self.symbols.shape(name, meta.sizes), kind, float(bits))


def tensors_of(argument: Argument) -> list[str]:
    """Names of the tensors in an argument."""
    if argument.as_tensor:
        return [argument.as_tensor.name]
    if argument.as_optional_tensor:
        return [argument.as_optional_tensor.as_tensor.name] if argument.as_optional_tensor.as_tensor else []
    several = argument.as_tensors or [item.as_tensor for item in argument.as_optional_tensors or [] if item.as_tensor]
    return [tensor.name for tensor in several]


def _operator(target: str) -> tuple[str, str]:
    """(namespace, operator) of `torch.ops.aten.add.Tensor`."""
    words = target.split(".")
    if words[:2] == ["torch", "ops"] and len(words) >= 4:
        return words[2], words[3]
    return "", words[-1]


def _label(node: Node, operator: str) -> str:
    """Where the module stands, as its owner names it, and the operator unless the module is just that."""
    stack = str(node.metadata.get("nn_module_stack", ""))
    path = stack.rsplit(";", 1)[-1].split(",")
    own = operator.strip("_")
    if len(path) != 3 or not path[1] or not re.fullmatch(r"[\w.]{1,200}", path[1]):
        return own
    return path[1] if own in ("linear", "addmm", "convolution") or own.startswith("conv") else f"{path[1]}.{own}"
