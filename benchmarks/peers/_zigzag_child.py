"""Runs inside ZigZag's own environment: its search on a few layers; prints JSON with cost, CPU seconds and evaluations."""

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import yaml
import zigzag
from zigzag.api import get_hardware_performance_zigzag
from zigzag.cost_model.cost_model import CostModelEvaluation

logging.disable(logging.CRITICAL)
INPUTS = Path(zigzag.__file__).parent / "inputs"
evaluations = 0
_plain = CostModelEvaluation.__init__


def _counted(self, *args, **kwargs):
    global evaluations
    evaluations += 1
    _plain(self, *args, **kwargs)


CostModelEvaluation.__init__ = _counted


def layer(name: str, size: dict, stride: int) -> dict:
    """One layer in ZigZag's workload format; padding is none, as in the rows it is compared with."""
    if "FX" in size:
        dims, equation = ["B", "K", "C", "OY", "OX", "FY", "FX"], "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]"
        more = {"dimension_relations": [f"ix={stride}*ox+1*fx", f"iy={stride}*oy+1*fy"]}
    else:
        dims, equation, more = ["B", "K", "C"], "O[b][k]+=W[k][c]*I[b][c]", {}
    return {
        "id": 0, "name": name, "operator_type": "Conv" if "FX" in size else "Gemm", "equation": equation, "loop_dims": dims,
        "loop_sizes": [size[d] for d in dims], "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
        "operand_source": {"I": 0, "W": 0}, **more,
    }  # fmt: skip


def main() -> None:
    jobs, found = json.load(sys.stdin), []
    for job in jobs:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "workload.yaml"
            path.write_text(yaml.safe_dump([layer(job["layer"], job["dims"], job["stride"])], sort_keys=False))
            hardware, mapping = (
                INPUTS / "hardware" / f"{job['hardware']}.yaml",
                INPUTS / "mapping" / f"{job['mapping']}.yaml",
            )
            before, start = evaluations, time.process_time()
            energy, latency, *_ = get_hardware_performance_zigzag(
                str(path), str(hardware), str(mapping), opt=job["objective"], lpf_limit=6, dump_folder=folder,
                loma_show_progress_bar=False,
            )  # fmt: skip
            found.append({"latency": float(latency), "energy_pJ": float(energy), "cpu_s": time.process_time() - start,
                          "evaluations": evaluations - before})  # fmt: skip
    print("RESULT" + json.dumps(found))


main()
