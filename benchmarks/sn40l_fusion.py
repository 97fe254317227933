"""Streaming dataflow on SambaNova's SN40L: every benchmark of its paper's table III kernel by kernel and fused, with either launch.

arXiv 2405.07518 prints classes of speed-ups, not bars: ours stand beside the class. `best`: the fastest partition into kernels of at
most 64 neighbouring rows. `20 ops`: of at most 24, as the paper says of its compiler ("over 20 operators"). `11 ops`: of at most 11, so
that there are about as many launches as the paper counts (11 times fewer). Nothing is fitted to the paper's speed-ups; what it does not
print is assumed once, for all rows: 10 us for a launch by the host (a hundredth by hardware), 100 GB/s each way between sockets, batch 1,
tensor parallelism by rules (`schedule/spatial/_socket_shares.py`). Sweeps show what these decide.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import arguments, report

LARGEST = {"best": 64, "20 ops": 24, "11 ops": 11}
SOFTWARE_S = (2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6)
LINKS = (50e9, 100e9, 200e9, 400e9, 1e15)
# class: least and most speed-up of the fused over the unfused, and of hardware over software launch
PUBLISHED = {
    "FlashFFTConv": {"fused": (13, 13), "hardware_over_software": (1.0, 1.0)},
    "prefill, train": {"fused": (1.5, 3), "hardware_over_software": (1.0, 1.1)},
    "decode": {"fused": (1, 13), "hardware_over_software": (1.4, 8)},
}
LAUNCH_RATIO = 11  # llama2-7B 4K prefill: fewer kernels by
TABLE_IV = {"llama-3-8b": 1042, "llama-3-70b": 457, "llama-3-405b": 129}  # tokens/s/user, 16 sockets, 8K
TABLE_I = {"none": 39.5, "xla-like": 102.6, "dataflow": 410.4}
SPARSE = "bf16-sparse87.5"


def cases() -> list[tuple[str, str, str, int, dict]]:
    """(label, class, model, sockets, options)."""
    out = [("FlashFFTConv 1M", "FlashFFTConv", "flashfftconv", 1, dict(seq_len=2**20))]
    for label, model, tokens, phases in (
        ("llama2-7B 4K", "llama-2-7b", 4096, ("prefill", "decode", "train")),
        ("sparseGPT-13B 2K", "sparse-gpt-13b", 2048, ("train",)),
        ("llama2-70B 4K", "llama-2-70b", 4096, ("prefill", "decode")),
        ("bloom-176B 8K", "bloom-176b", 8192, ("prefill", "decode")),
        ("mistral-7B 2K", "mistral-7b", 2048, ("prefill", "decode")),
        ("mistral-7B 4K", "mistral-7b", 4096, ("prefill", "decode")),
        ("falcon-40B 2K", "falcon-40b", 2048, ("prefill", "decode")),
        ("llava1.5-7B 4K", "llava-1.5-7b", 4096, ("prefill", "decode")),
    ):
        for phase in phases:
            text = (
                tokens - 576 if model.startswith("llava") and phase != "decode" else tokens
            )  # a picture is 576 tokens
            options = dict(context=tokens) if phase == "decode" else dict(seq_len=text)
            if model.startswith("sparse"):
                options["weight_dtype"] = SPARSE
            kind = "decode" if phase == "decode" else "prefill, train"
            out.append((f"{label} {phase}", kind, model, 8, dict(phase=phase, **options)))
    return out


def _told(run, fabric, kernels: int, base=None) -> dict:
    told = {
        "time_s": float(run.time_s), "kernels": kernels, "launch_s": float(run.launch_s), "pipeline_s": float(run.compute_s),
        "memory_s": float(run.memory_s), "link_s": float(run.link_s), "memory_bytes": float(run.memory_bytes),
        "memory_share_reached": float(run.bandwidth), "units_used": float(run.units), "fits": bool(run.fits),
    }  # fmt: skip
    return told | ({} if base is None else {"speedup": float(base.time_s / run.time_s)})


def _inside(value: float, low: float, high: float) -> bool:
    return low * 0.95 <= value <= high * 1.05  # the paper prints two digits


class Case:
    """One benchmark, prepared: the rows of a socket and the pipelines of all segments."""

    def __init__(self, label, kind, model, sockets, options):
        import perfmodel as pm
        from perfmodel.schedule import spatial

        self.label, self.kind, self.model, self.options, self.sockets = label, kind, model, options, sockets
        self.system = pm.systems.load("sn40l-node" if sockets > 1 else "sn40l")
        self.program = spatial.program(pm.models.load(model, **options), sockets)
        self.software = spatial.fabric(self.system, sockets=sockets)
        self.hardware = spatial.fabric(self.system, sockets=sockets, launch="hardware")
        self.alone = spatial.groups(self.program, spatial.unfused(self.program))
        self.segments = {
            name: spatial.segments(self.program, self.software, largest) for name, largest in LARGEST.items()
        }

    def with_(self, fabric, **leaves):
        import equinox as eqx
        import jax.numpy as jnp

        names = list(leaves)
        return eqx.tree_at(
            lambda f: [getattr(f, n) for n in names], fabric, [jnp.asarray(float(leaves[n])) for n in names]
        )

    def run(self, software, hardware) -> dict:
        """All executions: partitions are chosen for the software launch, and for the hardware launch anew."""
        from perfmodel.schedule import spatial

        p = self.program
        spilled = float(spatial.spilled_share(p, software))
        base = spatial.execution(self.alone, software, spilled=spilled)
        out: dict = {
            "unfused": _told(base, software, p.n_rows),
            "unfused_hardware": _told(
                spatial.execution(self.alone, hardware, spilled=spilled), hardware, p.n_rows, base
            ),
            "share_in_ddr": spilled,
        }
        for name, found in self.segments.items():
            told = {}
            for launch, fabric in (("software", software), ("hardware", hardware)):
                cut = spatial.best_chain(p, fabric, found=found, spilled=spilled)
                kernels = spatial.groups(p, cut.members)
                told[launch] = _told(spatial.execution(kernels, fabric, spilled=spilled), fabric, len(cut.cuts), base)
                if launch == "software":
                    same = spatial.execution(kernels, hardware, spilled=spilled)
                    told["hardware, same kernels"] = _told(same, hardware, len(cut.cuts), base)
            told["hardware_over_software"] = told["software"]["time_s"] / told["hardware, same kernels"]["time_s"]
            told["launches_fewer"] = p.n_rows / told["software"]["kernels"]
            out[name] = told
        return out

    def quick(self, software, name: str) -> tuple[float, float, int]:
        """(fused over unfused, hardware over software, kernels) of a partition chosen by time, by the table of segments alone."""
        import numpy as np

        from perfmodel.schedule import spatial

        p = self.program
        spilled = float(spatial.spilled_share(p, software))
        hardware = self.with_(software, launch_s=0.01 * float(software.launch_s))
        base = float(spatial.execution(self.alone, software, spilled=spilled).time_s)
        cut = spatial.best_chain(p, software, found=self.segments[name], spilled=spilled)
        n = len(cut.cuts)
        fast = cut.time_s - n * (float(software.launch_s) - float(hardware.launch_s))
        return base / np.float64(fast).item(), cut.time_s / fast, n


def table_iii() -> tuple[list[dict], list[str], list[Case]]:
    rows, made = [], []
    for each in cases():
        case = Case(*each)
        made.append(case)
        variants = {}
        for hbm in (1.8e12, 1.6e12):
            for ddr in (200e9, 100e9):
                change = dict(memory_bytes_per_s=hbm, next_bytes_per_s=ddr)
                variants[f"hbm {hbm / 1e12:g} TB/s, ddr {ddr / 1e9:g} GB/s"] = case.run(
                    case.with_(case.software, **change), case.with_(case.hardware, **change)
                )
        first = next(iter(variants.values()))
        want = PUBLISHED[case.kind]
        verdict = {}
        for name in LARGEST:
            told = first[name]
            verdict[name] = {
                "fused_in_class": _inside(told["hardware, same kernels"]["speedup"], *want["fused"]),
                "launch_in_class": _inside(told["hardware_over_software"], *want["hardware_over_software"]),
            }
        rows.append({"benchmark": case.label, "class": case.kind, "model": case.model, "sockets": case.sockets,
                     "options": {"batch": 1, **case.options}, "published": want, "verdict": verdict, "variants": variants})  # fmt: skip
        print(f"  {case.label} done", file=sys.stderr)
    lines = [
        "table III, HBM 1.8 TB/s, DDR 200 GB/s; times in ms; x: over unfused; HO/SO: hardware over software launch, same kernels",
        f"{'':27}{'unfused':>9}{'kern.':>6} |{'best: SO':>9}{'x':>6}{'HO x':>6}{'HO/SO':>7}{'kern.':>6} |{'20 ops: SO':>11}"
        f"{'x':>6}{'HO x':>6}{'HO/SO':>7}{'kern.':>6}   published: fused, HO/SO",
    ]  # fmt: skip
    for r in rows:
        first = next(iter(r["variants"].values()))
        line = f"{r['benchmark']:27}{first['unfused']['time_s'] * 1e3:9.3f}{first['unfused']['kernels']:6}"
        for name, width in (("best", 9), ("20 ops", 11)):
            t, v = first[name], r["verdict"][name]
            line += (
                f" |{t['software']['time_s'] * 1e3:{width}.3f}{t['software']['speedup']:6.2f}"
                f"{t['hardware, same kernels']['speedup']:5.2f}{'*' if v['fused_in_class'] else ' '}"
                f"{t['hardware_over_software']:6.2f}{'*' if v['launch_in_class'] else ' '}{t['software']['kernels']:6}"
            )
        f, h = r["published"]["fused"], r["published"]["hardware_over_software"]
        lines.append(line + f"   {f[0]:g}-{f[1]:g}, {h[0]:g}-{h[1]:g}")
    lines.append("*: in the published class")
    llama = next(r for r in rows if r["benchmark"] == "llama2-7B 4K prefill")
    fewer = {name: next(iter(llama["variants"].values()))[name]["launches_fewer"] for name in LARGEST}
    lines.append(
        f"kernel launches of llama2-7B 4K prefill: {fewer['best']:.1f}x (best), {fewer['20 ops']:.1f}x (20 ops), "
        f"{fewer['11 ops']:.1f}x (11 ops) fewer; published {LAUNCH_RATIO}x"
    )
    lines.append("11 ops: kernels, fused + SO and + HO over unfused, HO/SO")
    for r in rows:
        t, v = next(iter(r["variants"].values()))["11 ops"], r["verdict"]["11 ops"]
        lines.append(
            f"{r['benchmark']:27}{t['software']['kernels']:6}{t['software']['speedup']:7.2f}"
            f"{t['hardware, same kernels']['speedup']:7.2f}{'*' if v['fused_in_class'] else ' '}"
            f"{t['hardware_over_software']:7.2f}{'*' if v['launch_in_class'] else ' '}"
        )
    lines.append("variants, speed-up best + HO / unfused and HO/SO:")
    for r in rows:
        lines.append(f"{r['benchmark']:27}" + "  ".join(
            f"{v['best']['hardware, same kernels']['speedup']:6.2f} {v['best']['hardware_over_software']:.2f}"
            for v in r["variants"].values()
        ))  # fmt: skip
    return rows, lines, made


def sweeps(made: list[Case]) -> tuple[dict, list[str]]:
    """What the two unpublished constants decide: seconds of a launch by the host, and links between sockets."""
    launches = []
    for seconds in SOFTWARE_S:
        for name in LARGEST:
            held, each = {}, {}
            for case in made:
                fused, ratio, kernels = case.quick(case.with_(case.software, launch_s=seconds), name)
                want = PUBLISHED[case.kind]
                each[case.label] = {"fused_hardware": fused, "hardware_over_software": ratio, "kernels": kernels}
                told = held.setdefault(case.kind, [0, 0, 0])
                told[0] += _inside(fused, *want["fused"])
                told[1] += _inside(ratio, *want["hardware_over_software"])
                told[2] += 1
            launches.append({"software_launch_s": seconds, "partition": name, "in_class": held, "each": each})
    lines = ["", "in class (fused, HO/SO) of how many, by the seconds of a launch by the host"]
    lines.append(f"{'us':>6} {'partition':10}" + "".join(f"{kind:>22}" for kind in PUBLISHED))
    for row in launches:
        lines.append(f"{row['software_launch_s'] * 1e6:6g} {row['partition']:10}" + "".join(
            f"{row['in_class'][kind][0]:12}, {row['in_class'][kind][1]} of {row['in_class'][kind][2]:3}" for kind in PUBLISHED
        ))  # fmt: skip
    links = []
    for case in (c for c in made if c.sockets > 1 and c.kind != "decode"):
        from perfmodel.schedule import spatial

        ratios = {}
        for link in LINKS:
            f = case.with_(case.software, link_bytes_per_s=link)
            alone = float(spatial.execution(case.alone, f).time_s)
            fused = spatial.best_chain(case.program, f, largest=LARGEST["20 ops"]).time_s
            ratios[f"{link:g}"] = {"unfused_s": alone, "fused_s": fused, "speedup": alone / fused}
        links.append({"benchmark": case.label, "by_link_bytes_per_s": ratios})
    lines += ["", "fused + SO over unfused by bandwidth between sockets, GB/s each way (20 ops, chosen anew for each)"]
    lines.append(
        f"{'':27}"
        + "".join(f"{'none' if x > 1e14 else f'{x / 1e9:g}':>8}" for x in LINKS)
        + "   (none: links take no time)"
    )
    lines += [
        f"{r['benchmark']:27}" + "".join(f"{v['speedup']:8.2f}" for v in r["by_link_bytes_per_s"].values())
        for r in links
    ]
    return {"launches": launches, "links": links}, lines


def shapes() -> tuple[list[dict], list[str]]:
    """FlashFFTConv: what the shapes decide that the paper does not print."""
    rows = []
    for order in (2, 3, 4):
        for packed in (False, True):
            options = dict(seq_len=2**20, order=order, packed=packed)
            case = Case("FlashFFTConv 1M", "FlashFFTConv", "flashfftconv", 1, options)
            found = case.run(case.software, case.hardware)
            told = found["best"]["software"]
            rows.append({"order": order, "packed": packed, "unfused_s": found["unfused"]["time_s"],
                         "unfused_kernels": found["unfused"]["kernels"],
                         "fused": told, "macs": float(case.program.macs.sum())})  # fmt: skip
    lines = ["", "FlashFFTConv 1M by shape: fused + SO over unfused (published 13)"]
    lines += [
        f"  order {r['order']}{', packed' if r['packed'] else '':8}: {r['fused']['speedup']:6.2f}x ({r['unfused_kernels']} kernels "
        f"{r['unfused_s'] * 1e3:.1f} ms; {r['fused']['kernels']} kernel(s) {r['fused']['time_s'] * 1e3:.2f} ms, of which pipeline "
        f"{r['fused']['pipeline_s'] * 1e3:.2f}, memory {r['fused']['memory_s'] * 1e3:.2f})"
        for r in rows
    ]
    return rows, lines


def table_iv() -> tuple[list[dict], list[str]]:
    """Tokens/s of one user on 16 sockets: plain decoding, and with a draft model that guesses the next tokens."""
    rows, draft = [], None
    for model, published in TABLE_IV.items():
        case = Case(model, "decode", model, 16, dict(phase="decode", context=8192))
        found = case.run(case.software, case.hardware)
        t = found["20 ops"]["hardware"]
        ideal = case.program.stored_bytes / float(case.hardware.memory_bytes_per_s)
        row = {"model": model, "published": published, "time_s": t["time_s"], "tokens_per_s": 1 / t["time_s"], 
               "ideal_tokens_per_s": 1 / ideal,
               "software_tokens_per_s": 1 / found["20 ops"]["software"]["time_s"], "unfused_tokens_per_s": 1 / found["unfused"]["time_s"],
               "memory_share_reached": t["memory_share_reached"], "kernels": t["kernels"]}  # fmt: skip
        row["published_share_of_ideal"] = published * ideal
        if draft is None:
            draft = t["time_s"]
        else:  # checks of a few tokens at once take as long as one: weights are read once
            row["speculative"] = {}
            for accepted in (0.6, 0.7, 0.8, 0.9):
                guesses = range(1, 17)
                rate = [(1 - accepted ** (g + 1)) / (1 - accepted) / (g * draft + t["time_s"]) for g in guesses]
                best = max(range(len(rate)), key=rate.__getitem__)
                row["speculative"][f"{accepted:g}"] = {"guesses": guesses[best], "tokens_per_s": rate[best]}
        rows.append(row)
    lines = [
        "",
        "table IV, 16 sockets, context 8192, tokens/s/user (kernels of 20 ops); "
        "draft: llama-3-8b, each guess accepted with p, best number of guesses",
    ]
    lines.append(
        f"{'':14}{'unfused':>9}{'SO':>9}{'HO':>9}{'p=0.6':>8}{'0.7':>8}{'0.8':>8}{'0.9':>8}{'published':>11}{'published/peak bytes':>22}"
    )
    for r in rows:
        spec = "".join(f"{v['tokens_per_s']:8.1f}" for v in r.get("speculative", {}).values()) or " " * 32
        lines.append(f"{r['model']:14}{r['unfused_tokens_per_s']:9.1f}{r['software_tokens_per_s']:9.1f}{r['tokens_per_s']:9.1f}{spec}"
                     f"{r['published']:11}{r['published_share_of_ideal']:22.2f}")  # fmt: skip
    return rows, lines


def table_i() -> tuple[list[dict], list[str]]:
    import perfmodel as pm
    from perfmodel.workload import fuse, intensity

    monarch = pm.models.load("monarch")
    rows = [
        {"backend": b, "ops_per_byte": intensity(monarch, fuse(monarch, b)).total, "published": p}
        for b, p in TABLE_I.items()
    ]
    lines = [
        "",
        "table I, operations a byte: "
        + ", ".join(f"{r['backend']} {r['ops_per_byte']:.1f} (published {r['published']})" for r in rows),
    ]
    return rows, lines


def main() -> None:
    args = arguments((__doc__ or "").splitlines()[0])
    rows, lines, made = table_iii()
    swept, more = sweeps(made)
    shaped, of_shapes = shapes()
    fourth, of_fourth = table_iv()
    first, of_first = table_i()
    lines += [*more, *of_shapes, *of_fourth, *of_first]
    assumed = {"software_launch_s": 10e-6, "hardware_launch_s": 1e-7, "stage_s": 1e-7, "link_bytes_per_s_each_way": 100e9, "hop_s": 500e-9,
               "batch": 1, "flashfftconv": "768 channels, order 3, not causal"}  # fmt: skip
    result = {
        "assumed": assumed,
        "table_iii": rows,
        "kernel_launch_ratio_published": LAUNCH_RATIO,
        "sweeps": swept,
        "flashfftconv_shapes": shaped,
        "table_iv": fourth,
        "table_i": first,
    }
    report("sn40l_fusion", args, result, lines)


if __name__ == "__main__":
    main()
