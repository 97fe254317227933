"""Products and convolutions of a jaxpr as rows; kernels written in Pallas."""

from collections.abc import Iterator
from math import prod

from .._sketch_ops import Conv, constant, convolution, product, transposed_convolution
from .._sketch_value import Value
from ._flat import Aval, Program, Step, sizes_of_dot
from ._traversal import Walker


def dot_general(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    a, b = ins[:2]
    groups, p, k, c = sizes_of_dot(step, Aval(a.shape, None), Aval(b.shape, None))
    return [product(walker.sketch, walker.label(step, "dot"), a, b, outs[0], groups=groups, p=p, k=k, c=c)]


def ragged_dot(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    """Experts: rows of `a` in runs, each with a matrix of its own; even runs are assumed where they divide.

    Whichever axis is ragged, every element of `a` meets every free column of `b` once.
    """
    a, b = ins[:2]
    numbers = step.params.get("ragged_dot_dimension_numbers")
    if numbers is None:
        contract, batch, experts = ((1,), (1,)), ((), ()), (0,)
    else:
        contract, batch = numbers.dot_dimension_numbers
        experts = tuple(numbers.rhs_group_dimensions)
    taken = {*contract[1], *batch[1], *experts}
    k = prod(size for i, size in enumerate(b.shape) if i not in taken)
    groups, c = prod(a.shape[i] for i in batch[0]), prod(a.shape[i] for i in contract[0])
    if 0 in (k, groups, c, a.elements):
        return [constant(outs[0])]
    p, n = a.elements // (groups * c), prod(b.shape[i] for i in experts)
    if b.is_weight and p % n == 0:
        groups, p = groups * n, p // n
    sketch, label = walker.sketch, walker.label(step, "experts")
    if b.is_weight:
        reads = [sketch.settled(a), sketch.settled(ins[2])]
        made = min(b.elements, sum(part.elements for part in b.parts))
        dims = dict(groups=groups, p=p, k=k, c=c)
        return [sketch.add(label, "gemm", reads, outs[0], dims=dims, weights=[b], weight_elements=made)]
    return [product(sketch, label, a, b, outs[0], groups=groups, p=p, k=k, c=c)]


def conv_general_dilated(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    params = step.params
    numbers = params["dimension_numbers"]
    x, weight, out = ins[0], ins[1], outs[0]
    groups, parts = int(params["feature_group_count"]), int(params["batch_group_count"])
    x_axes, w_axes, out_axes = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    between = tuple(int(d) for d in params["lhs_dilation"] or ()) or (1,) * (len(x_axes) - 2)
    stride = tuple(int(s) for s in params["window_strides"])
    conv = Conv(
        groups=groups * parts, batch=out.shape[out_axes[0]], k=weight.shape[w_axes[0]] // (groups * parts), c=weight.shape[w_axes[1]],
        image=tuple(x.shape[i] for i in x_axes[2:]), out=tuple(out.shape[i] for i in out_axes[2:]),
        window=tuple(weight.shape[i] for i in w_axes[2:]), stride=stride or (1,),
    )  # fmt: skip
    sketch, label = walker.sketch, walker.label(step, "conv")
    if any(d > 1 for d in between):
        if all(s == 1 for s in stride):
            return [transposed_convolution(sketch, label, x, weight, out, conv)]
        sketch.warn(f"{label}: a convolution with both a stride and zeros between its inputs counts the zeros")
    return [convolution(sketch, label, x, weight, out, conv)]


def pallas_call(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    """A kernel: products of its body times the grid; without any product, or with a loop of unknown length, data movement."""
    sketch, label = walker.sketch, walker.label(step, "pallas")
    grid = tuple(getattr(step.params.get("grid_mapping"), "grid", (None,)))
    dots = list(_dots(step.programs[0], 1)) if all(isinstance(n, int) for n in grid) else []
    if not dots or any(dot is None for dot in dots):
        sketch.warn(f"{label}: a Pallas kernel is modelled as data movement")
        return walker.moved(step, ins, outs)
    reads = [sketch.settled(value) for value in ins]
    last = outs[0]
    for groups, p, k, c in (dot for dot in dots if dot):
        # the operands of a tile are in fast memory: the kernel reads its inputs once
        made = last._replace(shape=outs[0].shape)
        dims = dict(groups=groups * prod(grid), p=p, k=k, c=c)
        last = sketch.add(label, "attention_gemm", reads, made, dims=dims, out_elements=sum(v.elements for v in outs))
        reads = [last]
    return walker.fan(last, outs)


def _dots(program: Program, times: int) -> Iterator[tuple[int, int, int, int] | None]:
    for step in program.steps:
        if step.name == "dot_general":
            groups, p, k, c = sizes_of_dot(step, program.avals[step.inputs[0]], program.avals[step.inputs[1]])
            if groups:
                yield groups * times, p, k, c
        elif step.name == "scan":
            yield from _dots(step.programs[0], times * int(step.params["length"]))
        elif step.name == "cond":
            yield from max((list(_dots(inner, times)) for inner in step.programs), key=_total)
        elif step.name == "while":
            yield None


def _total(dots: list) -> int:
    return sum(prod(dot) for dot in dots if dot)
