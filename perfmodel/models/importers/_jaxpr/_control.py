"""Loops and branches of a jaxpr: a loop is unrolled while its rows are few, else its passes are folded into the sizes of its rows."""

from typing import Any

from .._sketch_ops import constant
from .._sketch_value import LEAF, LOOP, OUTSIDE, Part, Value, parts_of, scaled
from ._flat import Program, Step, count_rows, work
from ._scalars import count_passes
from ._traversal import Walker

MOST_ROWS = 4096  # of a workload with unrolled loops


def scan(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    # operands stand as constants, carries, stacked arrays; what is stacked has one axis more outside (versions of JAX name
    # the numbers of each differently)
    body = step.programs[0]
    n_stacked = sum(len(body.avals[i].shape) != len(value.shape) for i, value in zip(body.inputs, ins, strict=True))
    n_carry = sum(len(body.avals[i].shape) == len(out.shape) for i, out in zip(body.outputs, outs, strict=True))
    n_consts = len(ins) - n_carry - n_stacked
    consts, init, xs = ins[:n_consts], ins[n_consts : n_consts + n_carry], ins[n_consts + n_carry :]
    times = int(step.params["length"])
    return _loop(walker, step, body, times, consts, init, xs, outs, bool(step.params.get("reverse")))


def while_loop(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    """The body times the passes: those of the hint, else those that its condition tells, else one. The condition is free."""
    cond, body = step.programs
    first, second = int(step.params["cond_nconsts"]), int(step.params["body_nconsts"])
    cond_consts, consts, init = ins[:first], ins[first : first + second], ins[first + second :]
    name = step.params["loop"]
    times = walker.trips.get(name, walker.trips.get("while"))
    if times is None:
        times = count_passes(cond, body, _consts(cond_consts), _consts(consts), _consts(init))
    if times is None:
        times = 1
        where = f" in {step.scope}" if step.scope else ""
        walker.sketch.warn(f"{name}{where}: how often it runs is not known: taken once (say trips={{{name!r}: N}})")
    return _loop(walker, step, body, times, consts, init, [], outs, False)


def cond(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    """The branch of a known predicate, else the costlier one."""
    index, operands = ins[0].const, ins[1:]
    branches = step.programs
    if index is not None:
        taken = min(max(int(index), 0), len(branches) - 1)
    else:
        costs = [work(branch) for branch in branches]
        taken = max(range(len(branches)), key=costs.__getitem__)
        where = f" in {step.scope}" if step.scope else ""
        walker.sketch.warn(
            f"cond{where}: which of {len(branches)} branches runs is not known: the costlier is taken (number {taken})"
        )
    return _inside(walker, step, "", branches[taken], operands)


def shard_map(walker: Walker, step: Step, ins: list[Value], outs: list[Value]) -> list[Value]:
    """What one device does."""
    walker.sketch.warn("shard_map: one device's share of the work is modelled, with all parameters")
    body = step.programs[0]
    shares = []
    for value, i in zip(ins, body.inputs, strict=True):
        shape = body.avals[i].shape
        here = value._replace(shape=shape, items=(), const=value.const if shape == value.shape else None)
        parts = scaled(parts_of(value), max(1, here.elements), max(1, value.elements))
        shares.append(here._replace(parts=parts if here.elements else ()))
    made = _inside(walker, step, "", body, shares)
    return [out._replace(parts=parts_of(value)) for out, value in zip(outs, made, strict=True)]


def _consts(values: list[Value]) -> list[Any]:
    return [value.const for value in values]


def _inside(walker: Walker, step: Step, name: str, program: Program, inputs: list[Value]) -> list[Value]:
    scope = ".".join(filter(None, (step.scope, name)))
    if scope:
        walker.scopes.append(scope)
    made = walker.run(program, inputs)
    if scope:
        walker.scopes.pop()
    return made


def _loop(walker: Walker, step: Step, body: Program, times: int, consts: list[Value], init: list[Value], xs: list[Value],
          outs: list[Value], reverse: bool) -> list[Value]:  # fmt: skip
    sketch = walker.sketch
    name = step.params.get("loop", step.name)
    if times == 0:
        return [*init, *(constant(out) for out in outs[len(init) :])]
    rows = count_rows(body)
    if times == 1 or times <= MOST_ROWS and len(sketch.rows) + times * rows <= MOST_ROWS:
        carry, made = init, []
        for t in range(times)[:: -1 if reverse else 1]:
            slices = [_item(x, t) for x in xs]
            results = _inside(walker, step, f"{name}[{t}]", body, [*consts, *carry, *slices])
            carry = results[: len(init)]
            made.append(results[len(init) :])
        made = made[:: -1 if reverse else 1]
        stacked = [_stacked(out, [row[i] for row in made]) for i, out in enumerate(outs[len(init) :])]
        return [*carry, *stacked]
    if rows:
        sketch.warn(
            f"{name}: {times} passes of about {rows} rows are too many to unroll: folded into the sizes of the rows of one pass"
        )
    start = len(sketch.rows)
    each = [value._replace(parts=scaled(parts_of(value), times), items=()) for value in consts]
    before = [_carried(value, times, sketch.times) for value in init]
    slices = [_one_of_many(x, times) for x in xs]
    sketch.times *= times
    results = _inside(walker, step, name, body, [*each, *before, *slices])
    sketch.times //= times
    sketch.loops.append((start, len(sketch.rows), [row for value in results[: len(init)] for row in value.rows]))
    ends = [value._replace(parts=_last_pass(value, times), const=None) for value in results[: len(init)]]
    stacked = [out._replace(parts=parts_of(v)) for out, v in zip(outs[len(init) :], results[len(init) :], strict=True)]
    return [*ends, *stacked]


def _item(value: Value, index: int) -> Value:
    """Slice `index` along the first axis."""
    if value.items:
        return value.items[index]
    n = value.shape[0]
    parts = tuple(
        part._replace(elements=-(-part.elements // n), key=None if part.key is None else (*part.key, ("item", index)))
        if part.source <= LEAF
        else part._replace(elements=max(1, part.elements // n))
        for part in value.parts
    )
    return value._replace(shape=value.shape[1:], parts=parts, const=None)


def _stacked(out: Value, items: list[Value]) -> Value:
    return out._replace(items=tuple(items)) if any(item.parts or item.items for item in items) else constant(out)


def _carried(value: Value, times: int, outer: int) -> Value:
    """What a folded loop carries: at first the value itself, then what the pass before left."""
    rest = Part(LOOP, (times - 1) * value.elements * outer, value.bits)
    parts = parts_of(value)
    if value.const is not None and value.elements == 1:
        return value._replace(const=None)
    return value._replace(parts=(*parts, rest) if value.elements else (), const=None, items=())


def _one_of_many(value: Value, times: int) -> Value:
    parts = tuple(part._replace(stack=part.stack * times) if part.source <= LEAF else part for part in parts_of(value))
    return value._replace(shape=value.shape[1:], parts=parts, items=(), const=None)


def _last_pass(value: Value, times: int) -> tuple[Part, ...]:
    """Of what was made in all passes, what the last one made; what came from outside the loop is one array again."""
    parts = [part for part in parts_of(value) if part.source != LOOP]
    return (
        scaled(parts, 1, times) if any(p.source >= 0 for p in parts) else tuple(p for p in parts if p.source <= OUTSIDE)
    )
