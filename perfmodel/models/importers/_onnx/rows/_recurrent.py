"""Rows of LSTM, GRU and RNN, per layer and direction."""

from .._emit import Emitter, RowMaker
from .._value import Op, Value
from ..shapes import GATES, recurrent_sizes

# lane operations a unit and step: each gate adds input and state part and a bias and looks its function up; then
# LSTM c = f c + i g (3), h = o tanh(c) (2); GRU r h (1), h = (1 - z) g + z h (4)
_LANES = {"LSTM": 4 * 3 + 5, "GRU": 3 * 3 + 5, "RNN": 3, "ms.DynamicQuantizeLSTM": 4 * 3 + 5}


def _recurrent(emitter: Emitter, op: Op) -> None:
    """One product for the input of all steps, one for the state, the gates. Directions are groups.

    The product of the state runs step by step; its steps are folded into rows (`p = steps * batch`), which is exact in MACs.
    Its weights count as read once a pass: a machine that cannot keep them would read them in every step. What it reads, the
    state of the step before, stands on its edge from the product of the input, since the gates that make it come after.
    """
    steps, batch, directions, depth, width = recurrent_sizes(op)
    gates, rows, elem = GATES[op.kind] * width, steps * batch, op.outputs[0].elem
    made = [Value(f"{op.label}.{name}", (directions, rows, gates), elem) for name in ("input", "state")]
    dims = dict(groups=directions, k=gates, c=depth, p=rows)
    size, units = directions * rows * gates * op.times, directions * rows * width
    first = emitter.row(op, "gemm", dims, [op.needed(0)], weights=[op.needed(1)], outputs=made[:1], label=".input")
    second = emitter.row(
        op, "gemm", {**dims, "c": width}, [], weights=[op.needed(2)], outputs=made[1:], label=".state",
        feeds={first: units * op.times},
    )  # fmt: skip
    emitter.row(
        op, "elementwise", dict(groups=directions, k=width, p=rows), [op.input(5), op.input(6)],
        weights=[op.input(3), op.input(7)], label=".gates", lane_ops=units * _LANES[op.kind], feeds={first: size, second: size},
    )  # fmt: skip


ROWS: dict[str, RowMaker] = dict.fromkeys(GATES, _recurrent)
