"""A jaxpr as one flat list of steps: calls inlined, variables numbered, loops and branches with programs of their own.

Only the shape of JAX's objects is relied on (`eqns`, `invars`, `outvars`, `primitive.name`, `params`, `aval`), no private module.
"""

import re
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np

# Functions of jax.nn that keep their name in a jaxpr, by the kind of row they are.
NAMED = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu", "relu6": "relu", "softmax": "softmax", "_softmax": "softmax",
    "log_softmax": "softmax", "_log_softmax": "softmax", "sigmoid": "sigmoid", "log_sigmoid": "sigmoid", "leaky_relu": "elementwise",
    "elu": "elementwise", "selu": "elementwise", "celu": "elementwise", "softplus": "elementwise", "mish": "elementwise",
    "hard_tanh": "elementwise", "hard_sigmoid": "elementwise", "hard_silu": "elementwise", "squareplus": "elementwise",
}  # fmt: skip
UNARY = frozenset(
    "neg sign floor ceil round is_finite exp exp2 log expm1 log1p tanh sin cos tan asin acos atan sinh cosh asinh acosh atanh logistic "
    "sqrt rsqrt cbrt abs not erf erfc erf_inv lgamma digamma square integer_pow real imag conj population_count clz reduce_precision "
    "bessel_i0e bessel_i1e one_minus_square polynomial".split()
)
ELEMENTWISE = UNARY | frozenset(
    "add sub mul div rem max min pow atan2 and or xor nextafter eq ne lt le gt ge shift_left shift_right_logical "
    "shift_right_arithmetic complex igamma igammac igamma_grad_a random_gamma_grad polygamma zeta regularized_incomplete_beta clamp "
    "select_n add_any eq_to le_to lt_to mulhi".split()
)
FREE = frozenset(
    "reshape squeeze expand_dims broadcast_in_dim broadcast convert_element_type stop_gradient copy copy_p device_put optimization_barrier "
    "sharding_constraint mesh_cast pvary pcast layout_constraint name rev bitcast_convert_type real_to_complex reduce_precision "
    "to_edtype from_edtype tile broadcast_to relayout reshard with_memory_space_constraint pin unpin reduced_vary_cast".split()
)
REDUCTIONS = frozenset(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin reduce".split()
)
CONTROL = ("scan", "while", "cond")
BY_ITEMS = ("slice", "squeeze", "dynamic_slice")  # these look at the items of a stack one by one
MATRIX = ("dot_general", "conv_general_dilated", "ragged_dot_general", "ragged_dot", "scaled_dot")
OWN_BODY = ("pallas_call", "shard_map")  # their body runs many times, or on a part of the arrays
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")  # where a call keeps what it calls
_OVER_AXES = {"psum": "reduce_sum", "pmax": "reduce_max", "pmin": "reduce_min"}  # of a vmapped axis: no communication
_NOT_A_SCOPE = (
    "jvp",
    "transpose",
    "vmap",
    "jit",
    "pjit",
    "checkpoint",
    "remat",
    "rematted_computation",
    "while",
    "body",
    "cond",
)


class Step(NamedTuple):
    """One primitive. `params` are the primitive's own; loops and branches hold `Program`s under `programs`."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    params: dict[str, Any]
    scope: str = ""
    programs: tuple["Program", ...] = ()


class Aval(NamedTuple):
    shape: tuple[int, ...]
    dtype: Any

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass
class Program:
    """Steps over numbered variables. `avals` of each; `known`: values of literals and captured constants."""

    steps: list[Step] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    avals: list[Aval] = field(default_factory=list)
    known: dict[int, Any] = field(default_factory=dict)
    readers: list[int] = field(default_factory=list)

    def new(self, aval: Any) -> int:
        self.avals.append(_aval(aval))
        return len(self.avals) - 1

    def count_readers(self) -> None:
        self.readers = [0] * len(self.avals)
        for step in self.steps:
            for i in step.inputs:
                self.readers[i] += 1
        for i in self.outputs:
            self.readers[i] += 1


def flatten(closed: Any, simplify: Any, loops: list[str] | None = None) -> Program:
    """The program of a closed jaxpr. `simplify(program)` is done to it and to every body inside; `loops` collects the names of
    while loops in order of appearance."""
    program, loops = Program(), [] if loops is None else loops
    jaxpr, consts = _opened(closed)
    env: dict[Any, int] = {}
    for var in jaxpr.invars:
        env[var] = program.new(var.aval)
        program.inputs.append(env[var])
    program.outputs = _inline(program, jaxpr, consts, env, "", simplify, loops)
    program.count_readers()
    simplify(program)
    program.count_readers()
    return program


def _inline(
    program: Program, jaxpr: Any, consts: Any, env: dict, scope: str, simplify: Any, loops: list[str]
) -> list[int]:
    """Append the steps of `jaxpr`, whose inputs are in `env`. Returns the variables of its outputs."""
    for var, value in zip(jaxpr.constvars, consts, strict=True):
        env[var] = program.new(var.aval)
        program.known[env[var]] = value

    def number(atom: Any) -> int:
        if hasattr(atom, "val"):
            new = program.new(atom.aval)
            program.known[new] = atom.val
            return new
        return env[atom]

    for eqn in jaxpr.eqns:
        name, params = str(eqn.primitive.name), eqn.params
        inside = _joined(scope, eqn)
        inputs = [number(atom) for atom in eqn.invars]
        called = next((params[key] for key in _CALLED if hasattr(_opened(params.get(key))[0], "eqns")), None)
        if name not in (*CONTROL, *OWN_BODY) and called is not None:
            inner, inner_consts = _opened(called)
            label = str(params.get("name") or "")
            if _is_named(label, inner, eqn):
                outputs = tuple(_bind(program, env, var) for var in eqn.outvars)
                program.steps.append(
                    Step("named", tuple(inputs), outputs, {"kind": NAMED[label], "label": label}, inside)
                )
                continue
            if len(inner.invars) == len(inputs) and len(inner.outvars) == len(eqn.outvars):
                inner_env = dict(zip(inner.invars, inputs, strict=True))
                deeper = inside if not re.fullmatch(r"[A-Za-z]\w*", label) else ".".join(filter(None, (inside, label)))
                outputs = _inline(program, inner, inner_consts, inner_env, deeper, simplify, loops)
                env.update(zip(eqn.outvars, outputs, strict=True))
                continue
        programs: tuple[Program, ...] = ()
        params = dict(params)
        if name == "while":
            params["loop"] = f"while{len(loops)}"
            loops.append(params["loop"])
            programs = (flatten(params["cond_jaxpr"], simplify, loops), flatten(params["body_jaxpr"], simplify, loops))
        elif name == "cond":
            programs = tuple(flatten(branch, simplify, loops) for branch in params["branches"])
        elif name in ("scan", *OWN_BODY):
            programs = (flatten(called, simplify, loops),)
        outputs = tuple(_bind(program, env, var) for var in eqn.outvars)
        if name in _OVER_AXES and all(isinstance(axis, int) for axis in params.get("axes", ("",))):
            pairs = zip(inputs, outputs, strict=True)
            program.steps += [Step(_OVER_AXES[name], (i,), (o,), params, inside) for i, o in pairs]
            continue
        program.steps.append(Step(name, tuple(inputs), outputs, params, inside, programs))
    return [number(atom) for atom in jaxpr.outvars]


def _bind(program: Program, env: dict, var: Any) -> int:
    env[var] = program.new(var.aval)
    return env[var]


def _opened(jaxpr: Any) -> tuple[Any, Any]:
    """(jaxpr, constants) of an open or closed jaxpr."""
    return (jaxpr.jaxpr, jaxpr.consts) if hasattr(jaxpr, "consts") and hasattr(jaxpr, "jaxpr") else (jaxpr, ())


def _is_named(label: str, inner: Any, eqn: Any) -> bool:
    """Whether a call is one of `NAMED` and does what that name promises: one array in, one of its shape out, no products."""
    if label not in NAMED or len(eqn.outvars) != 1:
        return False
    names = _primitives(inner)
    whole = sum(var.aval.shape == eqn.outvars[0].aval.shape for var in eqn.invars)
    return whole == 1 and not names & {*CONTROL, *MATRIX, *OWN_BODY}


def _primitives(jaxpr: Any) -> set[str]:
    names = set()
    for eqn in jaxpr.eqns:
        names.add(str(eqn.primitive.name))
        for value in eqn.params.values():
            inner = _opened(value)[0]
            names |= _primitives(inner) if hasattr(inner, "eqns") else set()
    return names


def _joined(scope: str, eqn: Any) -> str:
    """The scope of an equation: of its caller, and what `jax.named_scope` says."""
    stack = str(getattr(eqn.source_info, "name_stack", ""))
    scopes = "/".join(part for part in stack.split("/") if "->" not in part)  # an einsum's equation names nothing
    own = [word for word in re.findall(r"[A-Za-z_]\w*", scopes) if word not in _NOT_A_SCOPE]
    return ".".join(filter(None, (scope, *own)))


def _aval(aval: Any) -> Aval:
    inner = getattr(aval, "inner_aval", aval)  # of a reference: what it refers to
    shape = tuple(getattr(inner, "shape", ()))
    if not all(isinstance(size, int | np.integer) for size in shape):
        raise ValueError(f"an array has the symbolic shape {shape}; allowed: sizes that are numbers")
    return Aval(tuple(int(size) for size in shape), getattr(inner, "dtype", np.dtype(bool)))


def sizes_of_dot(step: Step, a: Aval, b: Aval) -> tuple[int, int, int, int]:
    """(groups, p, k, c) of a `dot_general`: batch axes, free axes of either operand, contracted axes."""
    (contract, _), (batch, _) = ((x, y) for x, y in step.params["dimension_numbers"])
    groups, c = prod(a.shape[i] for i in batch), prod(a.shape[i] for i in contract)
    shared = groups * c
    if shared == 0:
        return 0, 0, 0, 0
    return groups, a.elements // shared, b.elements // shared, c


def work(program: Program) -> tuple[int, int]:
    """(MACs, elements made) of a program, to compare branches: loops without a known number of passes run once, the costlier
    branch is taken. Filters of convolutions count without skipped zeros."""
    macs = made = 0
    for step in program.steps:
        made += sum(program.avals[i].elements for i in step.outputs)
        if step.name in CONTROL:
            inside = [work(inner) for inner in step.programs]
            times = int(step.params.get("length", 1)) if step.name == "scan" else 1
            most = max(inside)
            macs, made = macs + times * most[0], made + times * most[1]
        elif step.name in ("dot_general", "scaled_dot"):
            macs += prod(sizes_of_dot(step, *(program.avals[i] for i in step.inputs[:2])))
        elif step.name == "conv_general_dilated":
            out, filters = program.avals[step.outputs[0]], program.avals[step.inputs[1]]
            macs += (
                out.elements * filters.elements // max(1, filters.shape[step.params["dimension_numbers"].rhs_spec[0]])
            )
        elif step.name in MATRIX:
            macs += program.avals[step.inputs[0]].elements * program.avals[step.inputs[1]].shape[-1]
    return macs, made


def count_rows(program: Program) -> int:
    """About how many rows a program becomes: a bound that decides whether a loop is unrolled."""
    rows = 0
    for step in program.steps:
        if step.name in CONTROL:
            times = int(step.params.get("length", 1)) if step.name == "scan" else 1
            rows += times * max(count_rows(inner) for inner in step.programs)
        elif step.name in FREE:
            continue
        elif step.name in MATRIX or any(program.avals[i].elements >= 8 for i in (*step.inputs, *step.outputs)):
            rows += 1
    return rows
