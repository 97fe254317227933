"""The command `experts`: a router and many experts on nodes of a system; a picture over the number of experts."""

import json
import os
import sys
from pathlib import Path

import numpy as np

from ._options import said_once


def add_expert_flags(made) -> None:
    """Flags of the command."""
    made.epilog = "example: perfmodel experts --system sn40l-node --experts 150 --expert-model llama-2-7b --batch 8 --new-tokens 20"
    made.add_argument("--system", required=True, metavar="NAME|FILE", help="one node")
    made.add_argument("--experts", type=int, required=True, metavar="N", help="how many experts there are")
    made.add_argument("--expert-model", required=True, metavar="NAME", help="language model that every expert is")
    made.add_argument(
        "--router-model", metavar="NAME", help="language model that chooses the expert (default: the expert's)"
    )
    made.add_argument("--batch", type=int, required=True, metavar="N", help="prompts that arrive together")
    made.add_argument("--new-tokens", type=int, required=True, metavar="N", help="tokens that an expert writes")
    made.add_argument("--prompt", type=int, default=128, metavar="N", help="tokens of a prompt")
    made.add_argument("--router-tokens", type=int, default=1, metavar="N", help="tokens that the router writes")
    made.add_argument("--dtype", default="bf16", help="precision of weights, activations and KV cache")
    made.add_argument("--residency", metavar="hbm|any",
                      help="memory that must hold all experts (default: hbm where the slowest tier is a host's, else any)")  # fmt: skip
    made.add_argument("--popularity", type=float, metavar="S",
                      help="requests are independent, experts by Zipf's law of this exponent (0: all alike); default: experts are "
                      "asked for in turn, the worst case of a cache")  # fmt: skip
    made.add_argument("--trace", metavar="FILE", help="instead: requests, one expert a line, numbered from 0")
    made.add_argument(
        "--cache", default="lru", metavar="NAME", help="what stays in HBM: lru, belady (sees the future), static"
    )
    made.add_argument("--overlap", action="store_true", help="copy the next expert while one runs")
    made.add_argument("--expert-bytes", metavar="X", help="bytes of an expert, e.g. '14 GB' (default: the model's)")
    made.add_argument(
        "--copy-bandwidth", metavar="X", help="from the slowest tier to HBM, e.g. '0.8 TB/s' (default: the system's)"
    )
    for name, what in (
        ("router", "router takes for a batch"),
        ("prefill", "expert takes for a prompt"),
        ("decode", "expert takes a token"),
    ):
        made.add_argument(
            f"--{name}-time", metavar="X", help=f"time that the {what}, e.g. '20 ms' (default: the serving model's)"
        )
    made.add_argument(
        "--out", metavar="DIR", help="where to write experts.json and experts.png: latency over the number of experts"
    )
    made.add_argument("--seed", type=int, default=0, help="of simulated requests, where no formula is known")


def experts(arguments) -> tuple[dict, str]:
    """(JSON, text) of the command. Raises ValueError for bad input."""
    service = _service(arguments)
    with said_once():
        answer = service.answer()
    if arguments.out:
        _write(arguments.out, service, answer)
    return answer, _text(answer)


def _service(a):
    import perfmodel as pm
    from perfmodel.experts import ExpertService
    from perfmodel.hardware._quantity import quantity

    for name in ("experts", "batch", "new_tokens", "prompt", "router_tokens"):
        if getattr(a, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(a, name)}; allowed: an integer of at least 1")
    if a.popularity is not None and not (np.isfinite(a.popularity) and a.popularity >= 0):
        raise ValueError(f"--popularity is {a.popularity}; allowed: a number of at least 0")
    if a.popularity is not None and a.trace:
        raise ValueError("--popularity and --trace both say which experts are asked for; give one")

    def amount(name, unit):
        given = getattr(a, name)
        return None if given is None else quantity(given, unit, f"--{name.replace('_', '-')}")

    return ExpertService(
        pm.systems.load(a.system), a.expert_model, a.experts, router_model=a.router_model or a.expert_model, batch=a.batch,
        new_tokens=a.new_tokens, prompt=a.prompt, router_tokens=a.router_tokens, dtype=a.dtype, residency=a.residency,
        popularity=a.popularity, trace=a.trace, cache=a.cache, overlap=a.overlap, expert_bytes=amount("expert_bytes", "bytes"),
        copy_bytes_per_s=amount("copy_bandwidth", "bytes_per_s"), router_s=amount("router_time", "s"),
        prefill_s=amount("prefill_time", "s"), decode_s=amount("decode_time", "s"), seed=a.seed,
    )  # fmt: skip


def _write(out: str, service, answer: dict) -> None:
    from ._experts_plot import plot_experts

    most = int(max(1.2 * answer["experts_in_hbm"], service.experts, 4))
    edge = answer["experts_in_hbm"]
    counts = sorted(
        {
            *np.unique(np.linspace(1, most, 40).astype(int)),
            *(n for n in (edge, edge + 1) if 1 <= n <= most),
            service.experts,
        }
    )
    curve = service.curve(counts)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / ".experts.part.png"
        plot_experts(picture, {answer["system"]: (curve, answer["experts_in_hbm"])}, title=_title(answer))
        os.replace(picture, folder / "experts.png")
        partial = folder / ".experts.json.part"
        partial.write_text(json.dumps(answer | {"curve": curve}, indent=1, allow_nan=False) + "\n")
        os.replace(partial, folder / "experts.json")
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written: {error.strerror or error}") from None
    print(f"experts.png and experts.json in {folder}/", file=sys.stderr)


def _title(a: dict) -> str:
    asked = "asked for in turn" if a["popularity"] is None else f"Zipf {a['popularity']:g}"
    return f"{a['expert_model']} experts, batch {a['batch']}, {a['new_tokens']} new tokens, {asked}, {a['cache']}"


def _text(a: dict) -> str:
    def seconds(value) -> str:
        return "-" if value is None else f"{value:.4g} s" if value >= 1 else f"{value * 1e3:.4g} ms"

    def stated(name: str) -> str:
        return " (stated)" if name in a["stated"] else ""

    why = "" if a["residency_stated"] else ", this system's usual one"
    lines = [
        f"{a['experts']} experts {a['expert_model']} of {a['expert_bytes'] / 1e9:.4g} GB{stated('expert_bytes')}, router "
        f"{a['router_model']} of {a['router_bytes'] / 1e9:.4g} GB, on nodes {a['system']}",
        f"{'residency':20}{a['residency']}{why}",
        f"{'in ' + a['running_tier']:20}{a['experts_in_hbm']:,} experts beside router and {a['kv_bytes'] / 1e9:.3g} GB of KV cache, of "
        f"{a['running_tier_bytes'] / 1e9:.4g} GB",
        f"{'capacity':20}{a['experts_capacity']:,} experts a node; at all {a['experts_on_node']:,}",
    ]
    where = f" in {a['running_tier']}" if a["residency"] == "hbm" else ""
    lack = f", {a['missing_bytes'] / 1e9:,.1f} GB too many" if a["missing_bytes"] else ""
    lines.append(
        f"{'fits one node':20}{'yes' if a['fits'] else 'no'}{where}{lack}; nodes needed: {a['nodes_for_experts']}"
    )
    if a["experts_without_home"]:
        more = f"{a['experts_without_home']} more than {a['capacity_tier']} holds"
        lines.append(f"{'':20}{more}: experts swap places with those they make room for")
    lines.append(f"{'switching':20}{seconds(a['switch_s'])} to copy an expert from {a['capacity_tier']}{stated('copy_bytes_per_s')}"
                 if a["switch_s"] else f"{'switching':20}none: there is no slower tier")  # fmt: skip
    if a["request_s"] is None:
        return "\n".join(
            [*lines, "an expert, the router and the KV cache do not fit side by side: nothing runs on one node"]
        )
    lines.append(
        f"{'router':20}{seconds(a['router_s'])} for {a['batch']} prompts of {a['prompt']} tokens{stated('router_s')}"
    )
    lines.append(f"{'expert':20}{seconds(a['expert_s'])} for {a['new_tokens']} tokens: {seconds(a['prefill_s'])}{stated('prefill_s')} + "
                 f"{seconds(a['decode_s'])} a token{stated('decode_s')}")  # fmt: skip
    who = (
        f"of {a['trace']}"
        if a["trace"]
        else "asked for in turn"
        if a["popularity"] is None
        else f"by Zipf's law, {a['popularity']:g}"
    )
    lines.append(f"{'hit rate':20}{a['hit_rate']:.1%} with {a['cache']}, experts {who} ("
                 + ", ".join(f"{k} {v:.1%}" for k, v in a["hit_rates"].items()) + ")")  # fmt: skip
    nodes = "one node" if a["request_nodes"] == 1 else f"{a['request_nodes']} nodes"
    how = "overlapped" if a["overlap"] else "waited for"
    lines.append(f"{'request':20}{seconds(a['request_s'])} for a batch on {nodes}, copies {how}; {seconds(a['request_without_copies_s'])} "
                 "if all were there")  # fmt: skip
    if "trace_latency" in a:
        t = a["trace_latency"]
        lines.append(
            f"{'':20}{t['batches']:,} batches: median {seconds(t['p50_s'])}, 95 % {seconds(t['p95_s'])}, longest {seconds(t['max_s'])}"
        )
    return "\n".join(lines)
