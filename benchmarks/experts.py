"""Composition of experts against the SN40L paper (arXiv 2405.07518): switching, capacity, nodes, the jump in latency, Table V.

    python benchmarks/experts.py [--picture docs/images/experts.png]

150 experts Llama-2-7B and a router alike on one node of eight devices; published figures from tests/data/sn40l.json.
"""

from dataclasses import replace
from pathlib import Path

from _common import arguments, report

PAPER = Path(__file__).parents[1] / "tests" / "data" / "sn40l.json"
MODEL, EXPERTS, PROMPT = "llama-2-7b", 150, 128
SIZES = {"13.48 GB (parameters)": None, "14.0 GB (7e9 parameters)": 14e9}
SYSTEMS = ("sn40l-node", "dgx-a100", "dgx-h100")


def services(**more) -> dict:
    import perfmodel as pm
    from perfmodel.experts import ExpertService

    usual = dict(batch=1, new_tokens=20, prompt=PROMPT)
    return {name: ExpertService(pm.systems.load(name), MODEL, EXPERTS, **(usual | more)) for name in SYSTEMS}


def parameter_free() -> tuple[dict, list[str]]:
    """What follows from capacities and bandwidths alone."""
    from perfmodel.experts import ExpertService

    answer = {}
    for size, stated in SIZES.items():
        of = services(expert_bytes=stated)
        node, a100, h100 = of.values()

        def of_850(service: ExpertService, residency: str) -> int:
            return int(replace(service, experts=850, residency=residency).plan.nodes)

        switch = {name: float(s.plan.switch_s) for name, s in of.items()}
        answer[size] = dict(
            switch_s=switch,
            switch_speedup={name: switch[name] / switch["sn40l-node"] for name in SYSTEMS[1:]},
            experts_in_hbm={name: int(s.plan.in_hbm) for name, s in of.items()},
            sn40l_capacity=int(replace(node, residency="any").plan.capacity),
            dgx_host_capacity=int(replace(a100, residency="any").plan.capacity),
            dgx_host_and_hbm_capacity=int(replace(a100, residency="any").plan.on_node),
            nodes_for_850=dict(sn40l=of_850(node, "any"), dgx_a100=of_850(a100, "hbm"), dgx_h100=of_850(h100, "hbm"),
                               dgx_a100_any=of_850(a100, "any"), sn40l_hbm=of_850(node, "hbm")),
        )  # fmt: skip
    rows = [
        ("switching, over DGX A100", "31 (Table V)", lambda a: f"{a['switch_speedup']['dgx-a100']:.2f}"),
        ("switching, over DGX H100", "15 (text: 16)", lambda a: f"{a['switch_speedup']['dgx-h100']:.2f}"),
        ("experts in HBM, DGX (640 GB)", "jump at about 50", lambda a: a["experts_in_hbm"]["dgx-a100"]),
        ("experts in HBM, SN40L (512 GiB)", "-", lambda a: a["experts_in_hbm"]["sn40l-node"]),
        ("experts of one SN40L node", "850", lambda a: a["sn40l_capacity"]),
        (
            "experts of one DGX, host / host + HBM",
            "150",
            lambda a: f"{a['dgx_host_capacity']} / {a['dgx_host_and_hbm_capacity']}",
        ),
        ("nodes for 850: SN40L", "1", lambda a: a["nodes_for_850"]["sn40l"]),
        ("nodes for 850: DGX, in HBM", "19", lambda a: a["nodes_for_850"]["dgx_a100"]),
        ("nodes for 850: DGX, in host memory", "-", lambda a: a["nodes_for_850"]["dgx_a100_any"]),
    ]
    lines = [f"{'parameter-free':40}{'paper':>18}" + "".join(f"{size:>26}" for size in SIZES)]
    lines += [
        f"{name:40}{theirs:>18}" + "".join(f"{tell(answer[s])!s:>26}" for s in SIZES) for name, theirs, tell in rows
    ]
    return answer, [*lines, ""]


def bandwidths() -> tuple[dict, list[str]]:
    """Switching with both published DDR bandwidths and the node's own cap."""
    answer = {}
    for name, rate in (
        ("8 x 100 GB/s (slides)", 0.8e12),
        ("over 1 TB/s a node (paper)", 1.0e12),
        ("8 x 200 GB/s (paper)", 1.6e12),
    ):
        s = services(copy_bytes_per_s=rate)["sn40l-node"]
        other = services()
        answer[name] = dict(switch_s=float(s.plan.switch_s), over_dgx_a100=float(other["dgx-a100"].plan.switch_s / s.plan.switch_s),
                            over_dgx_h100=float(other["dgx-h100"].plan.switch_s / s.plan.switch_s))  # fmt: skip
    lines = [f"{'SN40L, DDR to HBM':30}{'switch ms':>12}{'over A100':>12}{'over H100':>12}"]
    lines += [
        f"{k:30}{v['switch_s'] * 1e3:12.2f}{v['over_dgx_a100']:12.1f}{v['over_dgx_h100']:12.1f}"
        for k, v in answer.items()
    ]
    import perfmodel as pm
    from perfmodel.experts import ExpertService

    small = float(ExpertService(pm.systems.load("sn40l-node"), "llama-3-8b", 150).plan.switch_s)
    answer["llama-3-8b"] = dict(switch_s=small, slides_s=0.01)
    return answer, [*lines, f"{'Llama-3-8B':30}{small * 1e3:12.2f}   (slides: 10 ms)", ""]


def jump(picture: str) -> tuple[dict, list[str]]:
    """Latency over the number of experts, in turn and by Zipf's law."""
    from search.commands import plot_experts

    counts = sorted(
        {1, 10, 20, 30, 38, 39, 40, 41, 44, 45, 46, 47, 48, 50, 60, 80, 100, 120, 148, 149, 150, 170, 193, 194, 200}
    )
    answer, lines, drawn = {}, [], {}
    for popularity in (None, 0.8):
        for name, service in services(residency="any", popularity=popularity).items():
            curve = service.curve(counts)
            edge = int(service.plan.in_hbm)
            kind = "in turn" if popularity is None else f"zipf {popularity:g}"
            answer[f"{name}, {kind}"] = curve | {"experts_in_hbm": edge}
            at = dict(zip(counts, curve["request_s"], strict=True))
            lines.append(
                f"{name + ', ' + kind:30}{edge:8}{at[edge] * 1e3:12.4g}{at[edge + 1] * 1e3:12.4g}{at[150] * 1e3:12.4g}"
            )
            if popularity is None:
                drawn[name] = (curve, edge)
    if picture:
        Path(picture).parent.mkdir(parents=True, exist_ok=True)
        plot_experts(picture, drawn, title=f"{MODEL} experts asked for in turn, batch 1, 20 new tokens, LRU")
    head = f"{'latency, ms; LRU, batch 1, 20 tokens':30}{'in HBM':>8}{'full':>12}{'one more':>12}{'150':>12}"
    return answer, [head, *lines, ""]


def table_v() -> tuple[dict, list[str]]:
    """The paper's ratios: unfitted, and after fits of three constants."""
    import numpy as np

    from perfmodel.experts import Node, fit_host, fit_reference, model_times, modelled_ratios, published_rows

    rows, nodes = published_rows(PAPER), {}
    for name, service in services(residency="any").items():
        points = [(row.batch, row.new_tokens) for row in rows] + [(1, row.new_tokens) for row in rows]
        times = {
            p: model_times(service.system, MODEL, batch=p[0], prompt=PROMPT, new_tokens=p[1])
            for p in dict.fromkeys(points)
        }
        nodes[name] = Node({p: float(t.prefill_s) for p, t in times.items()}, {p: float(t.decode_s) for p, t in times.items()},
                           float(service.plan.switch_s), 1.0 - service.rate("lru"))  # fmt: skip
    published = np.asarray([row.ratio for row in rows])
    unfitted = modelled_ratios(rows, nodes, router_tokens=1)
    host, reference = fit_host(rows, nodes, router_tokens=1), fit_reference(rows, nodes)
    left_out = []
    for i, row in enumerate(rows):  # each row predicted by constants fitted to the others
        fitted = fit_host([r for j, r in enumerate(rows) if j != i], nodes, 1).constants
        before, *steps = fitted.values()
        left_out.append(float(modelled_ratios([row], nodes, 1, before, dict(zip(SYSTEMS[1:], steps, strict=True)))[0]))
    answer = dict(
        rows=[r._asdict() for r in rows], unfitted=unfitted.tolist(), fitted_host=host.ratios.tolist(), left_out=left_out,
        fitted_reference=reference.ratios.tolist(), constants_host_fitted=host.constants, constants_reference_fitted=reference.constants,
        model_s={n: dict(prefill_1=v.prefill_s[1, 20], prefill_8=v.prefill_s[8, 20], decode=v.decode_s[1, 20]) for n, v in nodes.items()},
    )  # fmt: skip
    overall = np.asarray([r.overall for r in rows])

    def worst(got, which):
        return float(np.max(np.abs(np.asarray(got) / published - 1)[which]))

    tried = dict(unfitted=unfitted, fitted_host=host.ratios, left_out=left_out, fitted_reference=reference.ratios)
    answer["largest_error"] = {
        name: dict(overall=worst(got, overall), expert_only=worst(got, ~overall)) for name, got in tried.items()
    }
    answer["unfitted_within_15_percent"] = int(np.sum(np.abs(unfitted / published - 1) <= 0.15))
    lines = [
        f"{'Table V: times slower than SN40L':34}{'paper':>7}{'unfitted':>18}{'fitted, A':>18}{'A, left out':>18}{'fitted, B':>18}"
    ]
    for i, r in enumerate(rows):
        name = f"{'overall' if r.overall else 'expert only'}, batch {r.batch}, {r.new_tokens}, {r.system}"
        cells = "".join(
            f"{got[i]:9.2f}{got[i] / r.ratio - 1:+9.1%}" for got in (unfitted, host.ratios, left_out, reference.ratios)
        )
        lines.append(f"{name:41}{r.ratio:.1f}{cells}")
    lines += [
        f"within 15 % unfitted: {answer['unfitted_within_15_percent']} of {len(rows)}; largest error overall / expert only: "
        + ", ".join(f"{k} {v['overall']:.1%} / {v['expert_only']:.1%}" for k, v in answer["largest_error"].items()),
        "fitted, A (all 12 rows; the rest from the serving model): " + _constants(host),
        "fitted, B (8 overall rows; DGX = SN40L times the published expert-only row): " + _constants(reference),
        "",
    ]
    return answer, lines


def _constants(fit) -> str:
    return ", ".join(f"{name} {value * 1e3:.3g} ms (fitted)" for name, value in fit.constants.items())


def hit_rates() -> tuple[dict, list[str]]:
    """Formulas against simulations of 40,000 requests."""
    import numpy as np

    from perfmodel.experts import lru_hit_rate, static_hit_rate, steady_hit_rate, zipf, zipf_trace

    answer, lines = (
        {},
        [f"{'hit rate':30}{'LRU: Che':>10}{'simulated':>11}{'static':>10}{'simulated':>11}{'Belady':>9}"],
    )
    for experts, frames in ((150, 39), (150, 46), (850, 39)):
        for exponent in (0.0, 0.8, 1.2):
            p, trace = zipf(experts, exponent), zipf_trace(experts, exponent, 40_000)
            row = dict(
                che=float(lru_hit_rate(p, frames)), lru=steady_hit_rate(trace, frames, "lru"), static=float(static_hit_rate(p, frames)),
                static_simulated=steady_hit_rate(trace, frames, "static", hot=np.arange(experts)),
                belady=steady_hit_rate(trace, frames, "belady"),
            )  # fmt: skip
            name = f"{experts} experts, {frames} in HBM, zipf {exponent:g}"
            answer[name] = row
            lines.append(
                f"{name:30}{row['che']:10.4f}{row['lru']:11.4f}{row['static']:10.4f}{row['static_simulated']:11.4f}{row['belady']:9.4f}"
            )
    return answer, [*lines, ""]


def overlap() -> tuple[dict, list[str]]:
    """Copies beside the expert that runs."""
    answer, lines = {}, [f"{'batch 8, 150 experts in turn, LRU':34}{'waited for, s':>14}{'overlapped, s':>14}"]
    for tokens in (20, 200):
        for name, service in services(residency="any", batch=8, new_tokens=tokens).items():
            both = [float(replace(service, overlap=on).answer(())["request_s"]) for on in (False, True)]
            answer[f"{name}, {tokens} tokens"] = dict(waited_s=both[0], overlapped_s=both[1])
            lines.append(f"{name + f', {tokens} tokens':34}{both[0]:14.4g}{both[1]:14.4g}")
    return answer, [*lines, ""]


def main() -> None:
    args = arguments(
        "Composition of experts against the SN40L paper",
        picture=("docs/images/experts.png", "where to draw, '' for nowhere"),
    )
    answer, lines = {}, []
    for name, part in (("parameter_free", parameter_free), ("bandwidths", bandwidths), ("jump", lambda: jump(args.picture)),
                       ("table_v", table_v), ("hit_rates", hit_rates), ("overlap", overlap)):  # fmt: skip
        answer[name], told = part()
        lines += told
    report("experts", args, answer, lines)


if __name__ == "__main__":
    main()
