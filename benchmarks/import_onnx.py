"""CPU seconds to import ONNX files, and how they grow with the number of nodes.

Goal: ResNet-50 in under 2 s; time linear in nodes. Files: those in tests/data/onnx (exports of transformers models and models
that ship in public packages) and the models inside the package onnx. Chains: matrix products with bias, ReLU, residual sums.
"""

import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from _common import arguments, median, report

FILES = Path(__file__).parents[1] / "tests" / "data" / "onnx"
BIND = {
    "gpt2-dynamic": {"batch": 1, "sequence": 1024}, "bert-base-torchscript": {"batch": 1, "sequence": 512},
    "resnet50-torchscript": {"batch": 1}, "silero-vad": {"input[0]": 1, "input[1]": 576, "state[1]": 1},
    "ppocr-cls": {"x[0]": 1, "x[2]": 48, "x[3]": 192}, "ddddocr": {"image_width": 128}, "magika": {"unk__214": 1},
}  # fmt: skip
CHAINS = (1_000, 10_000, 100_000)


def chain(nodes: int, path: Path) -> None:
    """A residual network of dense layers: five nodes a layer."""
    from onnx import TensorProto, helper

    made, here = [], "x"
    for i in range(nodes // 5):
        w = "w" if i % 2 else "v"
        made += [
            helper.make_node("MatMul", [here, w], [f"m{i}"]), helper.make_node("Add", [f"m{i}", "b"], [f"a{i}"]),
            helper.make_node("Relu", [f"a{i}"], [f"r{i}"]), helper.make_node("Transpose", [f"r{i}"], [f"t{i}"], perm=[0, 1]),
            helper.make_node("Add", [f"t{i}", here], [f"s{i}"]),
        ]  # fmt: skip
        here = f"s{i}"
    weights = [
        TensorProto(name=name, data_type=1, dims=dims) for name, dims in (("w", [16, 16]), ("v", [16, 16]), ("b", [16]))
    ]
    ends = [helper.make_tensor_value_info(name, 1, [4, 16]) for name in ("x", here)]
    graph = helper.make_graph(made, "chain", ends[:1], ends[1:], weights)
    path.write_bytes(helper.make_model(graph).SerializeToString())


def cold(path: Path) -> float:
    """CPU seconds of the import in a fresh process that has perfmodel but not yet onnx."""
    code = (
        "import sys, time, warnings; warnings.simplefilter('ignore'); from perfmodel.workload.importers import import_onnx;"
        "start = time.process_time(); import_onnx(sys.argv[1]); print(time.process_time() - start)"
    )
    return float(
        subprocess.run([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True, check=True).stdout
    )


def main():
    args = arguments("CPU seconds to import ONNX files", repeat=(3, "runs of each, of which the median is told"))
    warnings.simplefilter("ignore")
    import onnx

    from perfmodel.models import import_onnx

    def timed(path: Path, bind: dict | None = None, repeat: int = args.repeat) -> dict:
        taken = []
        for _ in range(repeat):
            start = time.process_time()
            made = import_onnx(path, bind=bind)
            taken.append(time.process_time() - start)
        nodes = len(onnx.load(path, load_external_data=False).graph.node)
        return {
            "nodes": nodes, "operators": made.n_operators, "macs": made.macs, "parameters": made.parameters,
            "cpu_s": median(taken),
        }  # fmt: skip

    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    files = {
        path.stem: timed(path, BIND.get(path.stem))
        for path in [*sorted(FILES.glob("*.onnx")), *sorted(light.glob("*.onnx"))]
    }
    files["resnet50"]["cpu_s_with_import_of_onnx"] = cold(FILES / "resnet50.onnx")
    chains = {}
    with tempfile.TemporaryDirectory() as folder:
        for nodes in CHAINS:
            path = Path(folder) / f"chain{nodes}.onnx"
            chain(nodes, path)
            chains[nodes] = timed(path, repeat=1 if nodes > 10_000 else args.repeat)
    lines = [f"{'file':28} {'nodes':>7} {'operators':>9} {'MACs':>17} {'parameters':>14} {'CPU s':>7}"]
    for name, row in files.items():
        lines.append(
            f"{name:28} {row['nodes']:7} {row['operators']:9} {row['macs']:17} {row['parameters']:14} {row['cpu_s']:7.3f}"
        )
    lines.append(f"resnet50 with importing onnx, cold: {files['resnet50']['cpu_s_with_import_of_onnx']:.2f} s")
    for nodes, row in chains.items():
        lines.append(f"chain of {nodes} nodes: {row['cpu_s']:.2f} s, {1e6 * row['cpu_s'] / nodes:.0f} us a node")
    report("import_onnx", args, {"files": files, "chains": chains}, lines)


if __name__ == "__main__":
    main()
