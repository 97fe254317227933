"""Control flow and sequences: branches are chosen, loops unrolled or multiplied, sequences followed on the host.

If: a condition known from constants picks its branch, else the costlier one (MACs, then lane operations) is taken, with a note.
Loop, Scan: the trip count is a constant, the sequence's length, or bound by the loop's name; where none is known, one trip,
with a note. A short loop is unrolled trip by trip, which also follows shapes that grow; a long one (more than `UNROLLED` nodes
altogether) is traced once and every row of it multiplied, which is exact in MACs as long as shapes do not change.
"""

from typing import Any

import numpy as np

from ....workload._graph import GraphBuilder
from ....workload._operators import exact_macs, stack_operators
from ._emit import Emitter
from ._plan import Scope, Step
from ._trace import Control, Results, Tracer
from ._value import BOOL, INT64, Op, Root, Value, axis_of
from .rows import ROWS, default_row

UNROLLED = 4096
_FOREVER = 2**31 - 1


def _graph(op: Op, name: str) -> Any:
    graph = op.attributes.get(name)
    if not hasattr(graph, "node"):
        raise ValueError(f"attribute {name} is not a graph")
    return graph


def _if(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    condition = op.needed(0).array
    if condition is not None and condition.size:
        name = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        return list(tracer.run_graph(_graph(op, name), Scope(scope), f"{op.label}/", op.times))
    before, found, wrong = len(tracer.ops), [], None
    for name in ("then_branch", "else_branch"):
        try:
            outputs = tracer.run_graph(_graph(op, name), Scope(scope), f"{op.label}/", op.times)
            found.append((_cost_of(tracer.ops[before:]), name, tracer.ops[before:], outputs))
        except ValueError as error:  # written for other sizes
            wrong = error
        del tracer.ops[before:]
    if wrong is not None:
        if not found:
            raise wrong
        tracer.note(f"a branch of {op.label!r} does not run with these sizes, the other is taken ({wrong})")
    _, name, ops, outputs = max(found, key=lambda each: each[0])
    tracer.ops += ops
    if wrong is None:
        tracer.note(f"the condition of {op.label!r} is not known; the costlier branch is taken ({name})")
    return list(outputs)


def _cost_of(ops: list[Op]) -> tuple[int, int, int]:
    """MACs, lane operations and elements moved of operators on their own: which branch costs more."""
    emitter = Emitter(GraphBuilder("branch"))
    emitter.run(ops, ROWS, default_row)
    rows = emitter.graph.rows
    macs = sum(exact_macs(stack_operators(rows))) if rows else 0
    return macs, sum(row["lane_ops"] for row in rows), sum(row["in_elements"] + row["out_elements"] for row in rows)


def _loop(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    trips, bound = _known(op.input(0)), tracer.binding.trips(step.name or op.label)
    endless = op.input(0) is None or (trips is not None and trips >= _FOREVER)  # only the condition ends it
    trips = bound if bound is not None else None if endless else trips
    condition = op.input(1)
    start = True if condition is None else _known(condition)
    if start is not None and not start or trips == 0:
        trips = 0
    carried = [_kept(value) for value in op.inputs[2:]]
    return _iterate(tracer, op, scope, carried, [], trips, start is not None and endless)


def _scan(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    if op.opset < 9:
        raise ValueError("Scan of opset 8 is not read; convert the model to opset 9 or later")
    n = op.integer("num_scan_inputs", 0)
    states = len(op.inputs) - n
    if not 1 <= n <= len(op.inputs):
        raise ValueError(f"num_scan_inputs is {n}; the node has {len(op.inputs)} inputs")
    axes = op.integers("scan_input_axes", None, [0] * n)
    scanned = [(op.needed(states + i), axis_of(axes[i], len(op.shape(states + i)))) for i in range(n)]
    lengths = {value.shape[axis] for value, axis in scanned}
    if len(lengths) != 1:
        raise ValueError(f"the sequences have different lengths: {sorted(lengths)}")
    return _iterate(tracer, op, scope, [_kept(value) for value in op.inputs[:states]], scanned, lengths.pop(), True)


def _iterate(
    tracer: Tracer, op: Op, around: Scope, carried: list[Value], scanned: list, trips: int | None, counted: bool
) -> Results:
    """Run a body trip after trip, or once for all. A Loop's body takes trip and condition before and gives a condition."""
    loop, body = op.kind == "Loop", _graph(op, "body")
    names, start = [value.name for value in body.input], carried
    if len(names) != 2 * loop + len(carried) + len(scanned):
        raise ValueError(f"the body has {len(names)} inputs for {len(carried)} states and {len(scanned)} sequences")
    most = max(1, UNROLLED // max(1, len(body.node) * tracer.unrolled))
    multiplied = trips is not None and trips > max(1, most)
    limit = 1 if multiplied or (trips is None and not counted) else most if trips is None else trips
    stacked: list[list[Value]] = [[] for _ in body.output[loop + len(carried) :]]
    done, before, goes_on = 0, len(tracer.ops), None
    while done < limit:
        scope = Scope(around)
        factor = trips if multiplied and trips else 1
        values = [*_counters(done, multiplied)] if loop else []
        values += [
            *carried,
            *(_picked(tracer, op, value, axis, None if multiplied else done) for value, axis in scanned),
        ]
        scope.values.update(zip(names, values, strict=True))
        around_it, tracer.unrolled = tracer.unrolled, tracer.unrolled * max(1, limit)
        try:
            outputs = tracer.run_graph(body, scope, f"{op.label}/{'' if limit == 1 else f'{done}/'}", op.times * factor)
        finally:
            tracer.unrolled = around_it
        done += 1
        after = outputs[loop : loop + len(carried)]
        if multiplied and any(a.shape != b.shape for a, b in zip(after, carried, strict=True)):
            tracer.note(f"shapes change from trip to trip in {op.label!r}; every trip counts as the first")
        carried = after
        for stack, value in zip(stacked, outputs[loop + len(carried) :], strict=True):
            stack.append(value)
        goes_on = _known(outputs[0]) if loop and outputs else True
        if goes_on is None and trips is None:
            break
        if goes_on is None and trips is not None and done == 1:
            tracer.note(f"whether {op.label!r} ends early is not known; all {trips} trips are counted")
        if goes_on is not None and not goes_on:
            if multiplied:  # it ends at once
                del tracer.ops[before:]
                return _iterate(tracer, op, around, start, scanned, 1, counted)
            trips = done
            break
    if trips is None and counted and goes_on:
        raise ValueError(f"does not end within {limit} trips; bind its trip count: bind={{{op.label!r}: ...}}")
    if trips is None:
        tracer.note(f"the trip count of {op.label!r} is not known and set to 1 (bind={{{op.label!r}: ...}})")
    axes = op.integers("scan_output_axes", None, [0] * len(stacked))
    made: Results = list(carried)
    for stack, axis in zip(stacked, axes, strict=True):
        made.append(_stacked(tracer, op, stack, axis, trips if multiplied and trips else len(stack)))
    return made


def _known(value: Value | None) -> Any:
    """The single element of a value, None where it is not known."""
    if value is None or value.array is None or value.array.size != 1:
        return None
    return value.array.reshape(-1)[0].item()


def _kept(value: Value | None) -> Value:
    """A state before the first trip. Constants that start it are read like any tensor: work on them is done in every trip."""
    if value is None:
        raise ValueError("a state has no start")
    if value.static and value.shape and value.items is None and value.elem not in (INT64, BOOL):
        return Value(value.name, value.shape, value.elem)
    return value


def _counters(trip: int, unknown: bool) -> list[Value]:
    number = Value(
        "trip", (), INT64, True, None if unknown else np.asarray(trip), (Root("trip", 1, INT64, 1, False),), True
    )
    return [number, Value("condition", (), BOOL, True, np.asarray(True), (), True)]


def _picked(tracer: Tracer, op: Op, value: Value, axis: int, trip: int | None) -> Value:
    """What one trip sees of a sequence."""
    shape = (*value.shape[:axis], *value.shape[axis + 1 :])
    pick = Op("_Pick", f"{op.label}/pick", {"share": 1 / value.shape[axis]}, [value], times=op.times, opset=op.opset)
    made = tracer.emit(pick, [value.name], None, [(shape, value.elem)])[0]
    if value.array is not None and trip is not None:
        made.array = np.take(value.array, trip, axis)
    return made


def _stacked(tracer: Tracer, op: Op, values: list[Value], axis: int, trips: int) -> Value | None:
    """What all trips leave, one after another along a new axis."""
    if not values:
        return None
    shape = values[0].shape
    if any(value.shape != shape for value in values):
        raise ValueError(f"results of different shapes do not stack: {sorted({value.shape for value in values})[:4]}")
    at = axis_of(axis, len(shape) + 1)
    stack = Op("_Stack", f"{op.label}/stack", {}, list(values), times=op.times, opset=op.opset)
    return tracer.emit(stack, [values[0].name], None, [((*shape[:at], trips, *shape[at:]), values[0].elem)])[0]


# sequences


def _sequence(name: str, items: list[Value]) -> Value:
    return Value(name, (), items[0].elem if items else 1, items=items)


def _items(op: Op, index: int = 0) -> list[Value]:
    items = op.needed(index).items
    if items is None:
        raise ValueError(f"input {op.needed(index).name!r} is not a sequence that the file builds")
    return items


def _at(op: Op, index: int, n: int, default: int) -> int:
    position = op.input(index)
    at = default if position is None else int(op.elements(index).reshape(-1)[0])
    if not -n <= at < max(n, 1):
        raise ValueError(f"position {at} of a sequence of {n}")
    return at % max(n, 1)


def _insert(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    items = list(_items(op))
    at = len(items) if op.input(2) is None else _at(op, 2, len(items) + 1, 0)
    items.insert(at, op.needed(1))
    return [_sequence(step.outputs[0], items)]


def _erase(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    items = list(_items(op))
    del items[_at(op, 1, len(items), len(items) - 1)]
    return [_sequence(step.outputs[0], items)]


def _length(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    size = np.asarray(len(_items(op)), np.int64)
    return [Value(step.outputs[0], (), INT64, True, size, (Root(step.outputs[0], 1, INT64, 1, False),), True)]


def _split(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    shape, keep = op.shape(0), op.integer("keepdims", 1)
    axis = axis_of(op.integer("axis", 0), len(shape))
    each = 1 if op.input(1) is None else max(op.integers("split", 1)[0], 1) if not op.shape(1) else 0
    if each and shape[axis] > each * UNROLLED:
        raise ValueError(f"splits axis {axis} of shape {shape} into more than {UNROLLED} parts")
    sizes = [min(each, shape[axis] - i) for i in range(0, shape[axis], each)] if each else op.integers("split", 1)
    if sum(sizes) != shape[axis] or min(sizes, default=0) < 0 or len(sizes) > UNROLLED:
        raise ValueError(f"parts {sizes[:20]} do not add up to axis {axis} of shape {shape}")
    drop = op.input(1) is None and not keep
    made = [((*shape[:axis], *([] if drop else [size]), *shape[axis + 1 :]), op.needed(0).elem) for size in sizes]
    op.kind = "Split"
    return [
        _sequence(step.outputs[0], tracer.emit(op, [f"{step.outputs[0]}.{i}" for i in range(len(made))], None, made))
    ]


def _joined(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    items, axis = _items(op), op.integer("axis", 0)
    if not items:
        raise ValueError("nothing to concatenate")
    if op.integer("new_axis", 0):
        return [_stacked(tracer, op, items, axis, len(items))]
    join = Op("Concat", op.label, {"axis": axis}, list(items), times=op.times, opset=op.opset)
    return list(tracer.emit(join, [step.outputs[0]], None))


def _map(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    body, items = _graph(op, "body"), _items(op)
    made: list[list[Value]] = [[] for _ in body.output]
    for i in range(len(items)):
        inner = Scope(scope)
        values = [v if v is None or v.items is None else v.items[i] for v in op.inputs]
        inner.values.update({b.name: v for b, v in zip(body.input, values, strict=True) if v is not None})
        for stack, value in zip(made, tracer.run_graph(body, inner, f"{op.label}/{i}/", op.times), strict=True):
            stack.append(value)
    return [_sequence(name, stack) for name, stack in zip(step.outputs, made, strict=False)]


def _optional_has(tracer: Tracer, op: Op, step: Step, scope: Scope) -> Results:
    there = np.asarray(op.input(0) is not None)
    return [Value(step.outputs[0], (), BOOL, True, there, (Root(step.outputs[0], 1, BOOL, 1, False),), True)]


CONTROL: dict[str, Control] = {
    "If": _if, "Loop": _loop, "Scan": _scan, "SequenceMap": _map, "SequenceInsert": _insert, "SequenceErase": _erase,
    "SequenceLength": _length, "SplitToSequence": _split, "ConcatFromSequence": _joined,
    "SequenceEmpty": lambda tracer, op, step, scope: [_sequence(step.outputs[0], [])],
    "SequenceConstruct": lambda tracer, op, step, scope: [_sequence(step.outputs[0], [v for v in op.inputs if v is not None])],
    "SequenceAt": lambda tracer, op, step, scope: [_items(op)[_at(op, 1, len(_items(op)), 0)]],
    "Optional": lambda tracer, op, step, scope: [op.input(0)],
    "OptionalHasElement": _optional_has, "OptionalGetElement": lambda tracer, op, step, scope: [op.needed(0)],
}  # fmt: skip
