"""Views, look-ups, sorts and the other primitives of a jaxpr that need more than their name, and the table of all that do."""

from math import ceil, log2, prod

from .._sketch_ops import converted, look_up, pool, update, vector
from .._sketch_value import Value, flat, joined, keyed, parts_of, scaled
from . import _control as control
from . import _matrix as matrix
from ._flat import Step
from ._traversal import Handler, Walker

_CUMULATIVE = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
_SCATTERS = (
    "scatter", "scatter-add", "scatter_add", "scatter-mul", "scatter_mul", "scatter-sub", "scatter_sub", "scatter-min", "scatter-max",
    "scatter_min", "scatter_max",
)  # fmt: skip


def part_of(value: Value, out: Value, key: object) -> Value:
    """A slice of a value: its share of every part."""
    if out.elements == value.elements:
        return out._replace(parts=parts_of(value), moved=value.moved)
    parts = scaled(parts_of(value), out.elements, value.elements) if out.elements else ()
    return out._replace(parts=keyed(parts, key), moved=value.moved)


def _convert(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    if ins[0].const is not None:
        return [walker.view(ins[0], outs[0])]
    return [converted(walker.sketch, ins[0], outs[0], walker.program.readers[step.inputs[0]] == 1)]


def _transpose(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    order = [i for i in step.params["permutation"] if ins[0].shape[i] != 1]
    moved = walker.view(ins[0], outs[0])
    return [moved if order == sorted(order) else moved._replace(moved=not ins[0].is_weight)]


def _slice(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    value, out = ins[0], outs[0]
    start, strides = step.params["start_indices"], step.params["strides"]
    if value.items and out.shape[1:] == value.shape[1:]:
        rows = slice(start[0], step.params["limit_indices"][0], strides[0] if strides else 1)
        return [out._replace(items=value.items[rows])]
    return [part_of(value, out, ("slice", tuple(start), out.shape))]


def _squeeze(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    value = ins[0].items[0] if len(ins[0].items) == 1 and 0 in step.params.get("dimensions", ()) else flat(ins[0])
    return [walker.view(value, outs[0])]


def _dynamic_slice(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    value, starts, out = ins[0], [i.const for i in ins[1:]], outs[0]
    known = None if any(s is None for s in starts) else tuple(starts)
    if value.items and starts and starts[0] is not None and out.shape[1:] == value.shape[1:]:
        first = min(max(int(starts[0]), 0), value.shape[0] - out.shape[0])
        return [out._replace(items=value.items[first : first + out.shape[0]])]
    return [part_of(value, out, known and ("slice", known, out.shape))]


def _split(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    return [part_of(ins[0], out, ("split", i, out.shape)) for i, out in enumerate(outs)]


def _stack(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    return (
        [outs[0]._replace(items=tuple(ins))] if step.params.get("axis") == 0 else _concatenate(walker, step, ins, outs)
    )


def _concatenate(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    parts = joined([value for value in ins if value.elements])
    return [outs[0]._replace(parts=parts, moved=any(value.moved for value in ins))]


def _update_slice(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    return [update(walker.sketch, walker.label(step, "update"), ins[0], ins[1], outs[0])]


def _scatter(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    kind = "copy" if step.name == "scatter" else "add"
    return [update(walker.sketch, walker.label(step), ins[0], ins[2], outs[0], kind=kind, others=[ins[1]])]


def _gather(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    table, indices, out = ins[0], ins[1], outs[0]
    one = indices.elements <= max(1, indices.shape[-1] if indices.shape else 1)
    if one or not indices.parts and out.elements <= table.elements:  # one slice, or a slice with a stride
        return [part_of(table, out, None)]
    return [look_up(walker.sketch, walker.label(step), table, indices, out)]


def _pad(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    if any(low > 0 or high > 0 or inside > 0 for low, high, inside in step.params["padding_config"]):
        return [vector(walker.sketch, walker.label(step), "copy", ins[:1], outs[0])]
    return [part_of(ins[0], outs[0], None)]


def _named(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    label = walker.label(step, step.params["label"].strip("_"))
    return [vector(walker.sketch, label, step.params["kind"], ins, outs[0])]


def _cumulative(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    return [vector(walker.sketch, walker.label(step), "scan", ins, outs[0])]


def _sorted(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    """A sort compares each element log2(n) times, the k largest of n are kept in a heap: log2(k) times."""
    axis = step.params.get("dimension", step.params.get("axis", step.params.get("reduction_dimension", -1)))
    of = step.params.get("k") or (ins[0].shape[axis] if ins[0].shape else 1)
    ops = ins[0].elements * max(1, ceil(log2(max(of, 2))))
    whole = outs[0]._replace(shape=(sum(out.elements for out in outs),))
    return walker.fan(vector(walker.sketch, walker.label(step), "top_k", ins, whole, lane_ops=ops), outs)


def _fft(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    """Cooley-Tukey: 5 n log2(n) real operations a transform, half of that where one side is real."""
    lengths = step.params["fft_lengths"]
    points = max(ins[0].elements, outs[0].elements) * max(1.0, log2(max(2, prod(lengths))))
    real = "float" in (ins[0].kind, outs[0].kind)
    ops = round((2.5 if real else 5) * points)
    return [vector(walker.sketch, walker.label(step), "fft", ins[:1], outs[0], lane_ops=ops)]


def _window(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    window = step.params.get("window_dimensions", ())
    sizes = tuple(int(size) for size in window if size > 1)
    stride = max((int(s) for s in step.params.get("window_strides", ())), default=1)
    kind = "avg_pool" if step.name in ("reduce_window_sum", "reduce_window") else "max_pool"
    label = walker.label(step, "pool")
    if step.name.startswith("select_and"):  # the gradient of a maximum pool walks its windows once more
        ops = prod(sizes) * min(value.elements for value in ins)
        return [vector(walker.sketch, label, "max_pool", ins, out, lane_ops=ops) for out in outs]
    return [pool(walker.sketch, label, kind, ins[0], out, sizes, stride) for out in outs]


HANDLERS: dict[str, Handler] = {
    "dot_general": matrix.dot_general, "ragged_dot_general": matrix.ragged_dot, "ragged_dot": matrix.ragged_dot,
    "conv_general_dilated": matrix.conv_general_dilated, "pallas_call": matrix.pallas_call,
    "scan": control.scan, "while": control.while_loop, "cond": control.cond, "shard_map": control.shard_map,
    "convert_element_type": _convert, "transpose": _transpose, "slice": _slice, "squeeze": _squeeze, "dynamic_slice": _dynamic_slice,
    "scaled_dot": matrix.dot_general, "stack": _stack, "unstack": _split, "split": _split, "concatenate": _concatenate,
    "dynamic_update_slice": _update_slice, "gather": _gather, "pad": _pad,
    "named": _named, "fft": _fft, "sort": _sorted, "top_k": _sorted, "approx_top_k": _sorted,
    **dict.fromkeys(_CUMULATIVE, _cumulative), **dict.fromkeys(_SCATTERS, _scatter),
    **dict.fromkeys(("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min", "select_and_scatter_add",
                     "select_and_gather_add", "select_and_scatter"), _window),
}  # fmt: skip
