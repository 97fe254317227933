"""Models as they are built: parameters and work beside published figures, time to build and cost, and growth with the graph.

python benchmarks/workloads.py
"""

import _common as common

common.pin_to_one_core()

import time

import jax

import perfmodel as pm
from perfmodel.models import Net
from perfmodel.report import operators_table, workload_report

# Parameters that the publisher (or the library that runs the checkpoint) counts, and multiply-accumulates (None: not published
# in a way that can be compared). tests/workload/zoo says where each figure comes from and how differences of counting go away.
PUBLISHED = {
    "resnet50": (25_557_032, 4.09e9), "mobilenet-v2": (3_504_872, 0.301e9), "googlenet": (6_624_904, 1.498e9),
    "inception-v4": (42_679_816, 12.25e9), "yolov5x": (86_705_005, 102.85e9), "vit-b": (86_567_656, 17.56e9),
    "vit-l": (304_326_632, 61.55e9), "swin-t": (28_288_354, 4.5e9), "swin-b": (87_768_224, 15.4e9),
    "swin-l": (196_532_476, 34.5e9), "stable-diffusion-unet": (859_520_964, 339e9), "nerf": (595_844, None),
    "alphafold2": (93e6, None), "bert-base": (109_482_240, None), "bert-large": (335_141_888, None),
    "gpt2": (124_439_808, 106_300_440_576), "gpt2-xl": (1_557_611_200, None), "gpt3-175b": (174.6e9, None),
    "opt-13b": (12_853_473_280, None), "bloom-176b": (176_247_271_424, None), "llama-2-7b": (6_738_415_616, None),
    "llama-2-13b": (13_015_864_320, None), "llama-2-70b": (68_976_648_192, None), "llama-3-8b": (8_030_261_248, None),
    "llama-3-70b": (70_553_706_496, None), "llama-3-405b": (405_853_388_800, None), "mistral-7b": (7_241_732_096, None),
    "mixtral-8x7b": (46_702_792_704, None), "falcon-40b": (41_303_293_952, None), "deepseek-v3": (671_026_419_200, None),
    "mamba-130m": (129_135_360, None),
}  # fmt: skip
SIZES = (1_000, 10_000, 100_000)
REPEAT = 5


def seconds(call) -> float:
    return common.median(common.cpu_seconds(call, REPEAT))


def zoo() -> list[dict]:
    rows = []
    for name in pm.models.names():
        w = pm.models.load(name)
        parameters, macs = PUBLISHED.get(name, (None, None))
        rows.append(dict(name=name, operators=w.n_operators, parameters=w.parameters, macs=w.macs, published_parameters=parameters,
                         published_macs=macs, build_cpu_s=seconds(lambda n=name: pm.models.load(n))))  # fmt: skip
    return rows


def built_and_costed(name: str, system) -> dict:
    """CPU seconds with programs already compiled: build the graph, cost every operator, evaluate one schedule."""
    w, evaluate = pm.models.load(name), jax.jit(pm.evaluate)
    schedule = pm.Schedule.on_chiplet(w, 0)
    jax.block_until_ready((pm.cost_table(w, system), evaluate(w, system, schedule)))
    parts = dict(build_cpu_s=seconds(lambda: pm.models.load(name)), table_cpu_s=seconds(lambda: pm.cost_table(w, system)),
                 evaluate_cpu_s=seconds(lambda: evaluate(w, system, schedule)))  # fmt: skip
    return dict(name=name, system=system.name, operators=w.n_operators, total_cpu_s=sum(parts.values()), **parts)


def chain(n: int):
    """A graph of about `n` operators with skips, every block of another name."""
    net = Net(f"chain{n}")
    x = before = net.input(64, 32)
    for i in range(n // 2):
        y = net.linear(f"block{i}.linear", x, 32)
        x, before = net.vector(f"block{i}.add", "add", y, before if i % 3 else x), x
    return net.build()


def growth(system) -> list[dict]:
    rows = []
    for n in SIZES:
        times = {}

        def timed(what, call, times=times):
            start = time.process_time()
            made = call()
            times[f"{what}_cpu_s"] = time.process_time() - start
            return made

        w = timed("build", lambda n=n: chain(n))
        timed("merge", lambda w=w: pm.merge([w, w]))
        jax.block_until_ready(pm.cost_table(w, system))
        timed("table", lambda w=w: jax.block_until_ready(pm.cost_table(w, system)))
        workload_report(w, system)
        report = timed("analyse", lambda w=w: workload_report(w, system))
        timed("print", lambda report=report: operators_table(report))
        rows.append(dict(operators=w.n_operators, **times))
    return rows


def main() -> None:
    args = common.arguments(__doc__.splitlines()[0])
    package = pm.systems.load("mcm-2x2")
    models = zoo()
    speed = [built_and_costed("gpt3-175b", package), built_and_costed("resnet50", package)]
    grown = growth(package)
    lines = [
        f"{'model':24}{'operators':>10}{'parameters':>18}{'published':>18}{'MACs':>22}{'published':>12}{'build CPU ms':>14}"
    ]
    for r in models:
        known = f"{r['published_parameters']:18,.0f}" if r["published_parameters"] else f"{'':18}"
        work = f"{r['published_macs']:12.4g}" if r["published_macs"] else f"{'':12}"
        lines.append(
            f"{r['name']:24}{r['operators']:10,}{r['parameters']:18,}{known}{r['macs']:22,}{work}{r['build_cpu_s'] * 1e3:14.1f}"
        )
    lines += [
        "",
        f"{'built and costed, warm':24}{'operators':>10}{'build':>10}{'table':>10}{'evaluate':>10}{'total':>10}  CPU s",
    ]
    for r in speed:
        lines.append(f"{r['name'] + ' on ' + r['system']:24}{r['operators']:10,}{r['build_cpu_s']:10.4f}{r['table_cpu_s']:10.4f}"
                     f"{r['evaluate_cpu_s']:10.4f}{r['total_cpu_s']:10.4f}")  # fmt: skip
    what = [key for key in grown[0] if key.endswith("_cpu_s")]
    lines += ["", "growth, CPU s".ljust(24) + "".join(f"{key.removesuffix('_cpu_s'):>12}" for key in what)]
    for r in grown:
        lines.append(f"{r['operators']:<24,}" + "".join(f"{r[key]:12.4f}" for key in what))
    factor = {key: grown[-1][key] / grown[-2][key] for key in what}
    lines.append("10 times the operators".ljust(24) + "".join(f"{factor[key]:11.1f}x" for key in what))
    common.report(
        "workloads", args, dict(models=models, built_and_costed=speed, growth=grown, growth_factor=factor), lines
    )


if __name__ == "__main__":
    main()
