"""What comparisons with a peer on tests/data/llm_e2e.csv share: measured rows, the peer's process, errors, our speed on one grid."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, median

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from _common import cpu_seconds

DATA = HERE.parents[1] / "tests" / "data" / "llm_e2e.csv"
QUANTITIES = ("ttft_ms", "tpot_ms")
# The grid on which speed is taken: decode of llama-2-7b on dgx-a100.
DTYPES, TENSORS, BATCHES, CONTEXTS = ("bf16", "int8"), (1, 2, 4, 8), range(1, 129), range(128, 32769, 128)


def latency_rows() -> list:
    """Rows of a time to the first token or per token."""
    from perfmodel.calibration.llm import read_rows

    return [row for row in read_rows(DATA)[0] if row.quantity in QUANTITIES]


def our_answers(rows: list) -> list[float]:
    """Our predictions in the rows' unit, with the shipped constants."""
    import jax

    from perfmodel.calibration import llm

    with jax.enable_x64(True):
        return [float(x) for x in llm.predictions(rows)]


def ask(python: str, script: str, question):
    """What `script` of this folder prints behind RESULT under the peer's interpreter, given `question` as JSON on stdin."""
    child = subprocess.run(
        [python, "-P", str(HERE / script)], input=json.dumps(question), capture_output=True, text=True
    )
    if child.returncode:
        sys.exit(f"{script}: {child.stderr.strip().splitlines()[-1]}")
    return json.loads(child.stdout.split("RESULT")[1])


def figures(rows: list, told: dict[str, list[float]]) -> dict:
    """For each quantity its number of rows, and the median and mean error of each of `told`, which has a prediction for each row."""
    found = {}
    for quantity in QUANTITIES:
        mine = [i for i, row in enumerate(rows) if row.quantity == quantity]
        off = {who: [abs(values[i] / rows[i].measured - 1) for i in mine] for who, values in told.items()}
        found[quantity] = {"rows": len(mine)} | {
            f"{who}_{how.__name__}_ape_percent": 100 * how(x) for who, x in off.items() for how in (median, mean) if x
        }
    return found


def table(rows: list, peer: str, theirs: list[float], ours: list[float]) -> list[str]:
    """Lines of a table with a line for each row."""
    lines = [
        f"{'system':11}{'model':13}{'dtype':9}{'ranks':>6}{'in':>6}{'measured':>10}{peer:>11}{'error':>8}{'ours':>9}{'error':>8}"
    ]
    for r, them, us in zip(rows, theirs, ours, strict=True):
        lines.append(f"{r.system:11}{r.model:13}{r.dtype:9}{r.tensor:6.0f}{r.input_tokens:6.0f}{r.measured:10.5g}{them:11.4g}"
                     f"{them / r.measured - 1:+8.0%}{us:9.4g}{us / r.measured - 1:+8.0%}")  # fmt: skip
    return lines


def our_speed(repeat: int) -> tuple[int, list[float]]:
    """Points of the grid, and CPU seconds of each of `repeat` sweeps over it after the one that compiles."""
    import numpy as np

    import perfmodel as pm
    from perfmodel.cost import formats, machine, stack_formats
    from perfmodel.models import decoder
    from perfmodel.serving import sweep

    of = machine(pm.systems.load("dgx-a100"))
    grid = dict(formats=stack_formats([formats(of, d)[0] for d in DTYPES]),
                parallel=np.asarray([[n, 1, 1, 1] for n in TENSORS], float), batch=np.asarray(BATCHES, float),
                context=np.asarray(CONTEXTS, float))  # fmt: skip

    def call():
        return sweep(of, decoder("llama-2-7b"), **grid)

    return call()["tpot_s"].size, cpu_seconds(call, repeat)
