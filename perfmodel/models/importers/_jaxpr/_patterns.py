"""Softmax, normalisations, GELU and SiLU as they are written out in primitives, each collapsed into one step.

Such a function reads one large array `x` and makes one of its size; all between is elementwise, or a statistic of `x` (a reduction)
that is spread out again. From every step that could be the last one, the steps before it are taken in, latest first, as long as
nobody else reads them, until only one large array enters; the least region that is one of these functions is replaced.
"""

from ._flat import ELEMENTWISE, FREE, Program, Step

_ROOTS = frozenset(
    "div mul add sub select_n".split()
)  # a function of these ends with one of them (or a conversion after it)
_FUSIBLE = (ELEMENTWISE | FREE | {"reduce_sum", "reduce_max", "transpose"}) - {
    "rev",
    "bitcast_convert_type",
    "optimization_barrier",
}
# a softmax may take in the maximum that is subtracted first, a norm of centred values the centring
_GROWS = {("softmax", "stable_softmax"), ("rms_norm", "layer_norm")}
_LONGEST = 48  # steps of a region


def collapse(program: Program) -> None:
    """Replace what is recognised, in place."""
    maker = {out: i for i, step in enumerate(program.steps) for out in step.outputs}
    gone: set[int] = set()
    for last in range(len(program.steps) - 1, -1, -1):
        step = program.steps[last]
        if last in gone or step.name not in _ROOTS or program.avals[step.outputs[0]].elements < 8:
            continue
        found = _region(program, maker, gone, last)
        if found:
            kind, x, members = found
            sides = dict.fromkeys(
                i for m in sorted(members) for i in program.steps[m].inputs if maker.get(i) not in members
            )
            kind = kind.removeprefix("stable_")
            inputs = (x, *(i for i in sides if i != x and i not in program.known))
            program.steps[last] = Step("named", inputs, step.outputs, {"kind": kind, "label": kind}, step.scope)
            gone |= members - {last}
    program.steps = [step for i, step in enumerate(program.steps) if i not in gone]


def _region(program: Program, maker: dict[int, int], gone: set[int], last: int) -> tuple[str, int, set[int]] | None:
    """(kind, the array it is a function of, its steps), or None."""
    size = program.avals[program.steps[last].outputs[0]].elements
    members = {last}
    reads: dict[int, int] = {}  # readers inside, of each variable
    open_: set[int] = set()

    def take(step: int) -> None:
        for i in program.steps[step].inputs:
            reads[i] = reads.get(i, 0) + 1
            if i not in program.known:
                open_.add(i)

    take(last)
    found = None
    while open_ and len(members) <= _LONGEST:
        latest = max(open_, key=lambda i: maker.get(i, -1))
        large = [i for i in open_ if program.avals[i].elements >= size]
        if large == [latest]:
            inside = _depending(program, members, latest)
            kind = _kind(program, inside, latest)
            if found and not (kind and last in inside and (found[0], kind) in _GROWS):
                return found
            if kind and last in inside:
                found = kind, latest, inside
                if not any(kind == first for first, _ in _GROWS):
                    return found
        made = maker.get(latest, -1)
        if made < 0 or made in gone or not _may_enter(program, made) or program.readers[latest] != reads[latest]:
            if latest in large:
                return found
            open_.discard(latest)  # something small from elsewhere
            continue
        open_.discard(latest)
        members.add(made)
        take(made)
    return found


def _may_enter(program: Program, index: int) -> bool:
    step = program.steps[index]
    if step.name == "transpose":  # only axes of length one may move
        shape, order = program.avals[step.inputs[0]].shape, step.params["permutation"]
        kept = [i for i in order if shape[i] != 1]
        return kept == sorted(kept)
    return step.name in _FUSIBLE and len(step.outputs) == 1


def _depending(program: Program, members: set[int], x: int) -> set[int]:
    """Members that `x` flows into, and what spreads constants for them."""
    inside, flows = set(), {x}
    for index in sorted(members):
        step = program.steps[index]
        if flows & set(step.inputs):
            inside.add(index)
            flows.update(step.outputs)
    return inside


def _kind(program: Program, members: set[int], x: int) -> str | None:
    steps = [program.steps[i] for i in sorted(members)]
    names = {step.name for step in steps}
    shape = program.avals[x].shape
    sums = [step for step in steps if step.name == "reduce_sum"]
    if sums:
        if {"rsqrt", "sqrt", "pow"} & names and not {"exp", "exp2"} & names:
            last_axis = all(
                tuple(step.params["axes"]) == (len(program.avals[step.inputs[0]].shape) - 1,) for step in sums
            )
            if not last_axis:
                return "group_norm" if len(sums) > 1 else None
            return "layer_norm" if len(sums) > 1 else "rms_norm"
        normalised = {"exp", "exp2"} & names and {"div", "log", "mul"} & names and shape
        return ("stable_softmax" if "reduce_max" in names else "softmax") if normalised else None
    if "reduce_max" in names:
        return None
    multiplied = sum(step.name in ("mul", "div") for step in steps)
    by_x = any(step.name in ("mul", "div") and x in _origin(program, steps, step, x) for step in steps)
    if multiplied and by_x and {"erf", "erfc"} & names or ("tanh" in names and multiplied >= 3 and by_x):
        return "gelu"
    return "silu" if "logistic" in names and by_x and multiplied == 1 else None


def _origin(program: Program, steps: list[Step], step: Step, x: int) -> set[int]:
    """Inputs of a step, seen through conversions and products with constants: whether `x` itself is multiplied."""
    makers = {s.outputs[0]: s for s in steps}
    found = set()
    for i in step.inputs:
        while i in makers and (
            makers[i].name in FREE or makers[i].name == "mul" and _constant_factor(program, makers[i])
        ):
            i = next(j for j in makers[i].inputs if j not in program.known)
        found.add(i)
    return found


def _constant_factor(program: Program, step: Step) -> bool:
    return sum(i in program.known for i in step.inputs) == len(step.inputs) - 1
