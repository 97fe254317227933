"""The command `memory-design`: which SRAM, HBM and DDR serve a mix soonest for a budget; a picture of the front."""

import json
import os
import sys
from pathlib import Path

_MIX = "MODEL[,NAME=N...]"


def add_memory_flags(made) -> None:
    """Flags of the command."""
    made.epilog = (
        "example: perfmodel memory-design --system sn40l-node --request llama-2-7b,prompt=2048,batch=8 "
        "--experts llama-2-7b,experts=150,popularity=0.8,weight=4 --budget-usd 20000 --out design"
    )
    made.add_argument(
        "--system", required=True, metavar="NAME|FILE", help="whose compute and technology; its own tiers are compared"
    )
    made.add_argument("--request", action="append", default=[], metavar=_MIX,
                      help="a language model's: prompt=512, new_tokens=128, batch=1, dtype=bf16, weight=1; may be repeated")  # fmt: skip
    made.add_argument("--experts", action="append", default=[], metavar=_MIX,
                      help="a router's and an expert's: also experts=N, popularity=1 (Zipf's exponent); may be repeated")  # fmt: skip
    made.add_argument(
        "--budget-usd", type=float, metavar="X", help="for memory (default: what the system's own tiers cost)"
    )
    made.add_argument("--budget-w", type=float, metavar="X", help="instead: power of memory at full bandwidth")
    made.add_argument("--steps", type=int, default=400, help="of gradient descent")
    made.add_argument("--starts", type=int, default=6, help="descents from different points")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument(
        "--out", metavar="DIR", help="where to write memory.json and memory.png, the front of latency against budget"
    )


def memory_designed(a) -> tuple[dict, str]:
    """(JSON, text) of the command. Raises ValueError for bad input."""
    import perfmodel as pm

    from ..memory._design import design_memory
    from ..memory._model import ExpertRequest, Request

    mix = [_asked("--request", text, Request) for text in a.request] + [
        _asked("--experts", text, ExpertRequest) for text in a.experts
    ]
    if not mix:
        raise ValueError(f"nothing to serve; give --request {_MIX} or --experts {_MIX}")
    design = design_memory(
        pm.systems.load(a.system),
        mix,
        budget_usd=a.budget_usd,
        budget_w=a.budget_w,
        steps=a.steps,
        starts=a.starts,
        seed=a.seed,
    )
    answer = {
        name: value if isinstance(value, float | int | str) else value.tolist()
        for name, value in design._asdict().items()
    }
    answer |= dict(system=a.system, mix=[request._asdict() for request in mix])
    if a.out:
        _write(a.out, design, answer)
    return answer, memory_text(design, mix, a.system)


def _asked(flag: str, text: str, kind):
    """`MODEL,name=value,...` as a request. Raises ValueError in one line."""
    model, *given = text.split(",")
    defaults, values = kind._field_defaults, {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or name not in kind._fields or name == "model":
            from perfmodel._names import unknown_name

            raise unknown_name(f"{flag} {text}: NAME of NAME=N", name, [f for f in kind._fields if f != "model"])
        kept = type(defaults.get(name, 1))
        try:
            values[name] = kept(value)
        except ValueError:
            raise ValueError(
                f"{flag} {text}: {name} is {value!r}; allowed: {'an integer' if kept is int else 'a number'}"
            ) from None
    if "experts" in kind._fields and "experts" not in values:
        raise ValueError(f"{flag} {text}: experts is missing; needed: experts=N")
    return kind(model=model, **values)


def memory_text(d, mix, system: str) -> str:
    from ..memory._prices import TIERS

    money = d.unit == "usd"
    spent, own = (
        (f"{d.usd:,.0f} USD", f"{d.own_usd:,.0f} USD") if money else (f"{d.power_w:,.0f} W", f"{d.own_power_w:,.0f} W")
    )
    lines = [
        f"{'':8}{'GB':>12}{'GB/s':>12}{'of budget':>11}{'us per GB':>12}{'us per GB/s':>13}"
        + "".join(f"{f'us per {d.unit.upper()}, {w}':>22}" for w in ("capacity", "bandwidth")),
    ]
    for t, tier in enumerate(TIERS):
        lines.append(
            f"{tier:8}{d.capacity_bytes[t] / 1e9:12,.4g}{d.bytes_per_s[t] / 1e9:12,.4g}{d.shares[t] + d.shares[3 + t]:11.1%}"
            f"{d.marginal_s_per_gb[t] * 1e6:12.3g}{d.marginal_s_per_gb_per_s[t] * 1e6:13.3g}"
            f"{d.marginal_s_per_unit[t] * 1e6:22.3g}{d.marginal_s_per_unit[3 + t] * 1e6:22.3g}"
        )
    lines.append(
        f"mean latency {d.latency_s * 1e3:.4g} ms for {spent} of memory; {system} as it is: {d.own_latency_s * 1e3:.4g} ms for {own}"
    )
    for request, seconds in zip(mix, d.request_s, strict=True):
        said = ", ".join(f"{name} {value}" for name, value in request._asdict().items() if name != "model")
        lines.append(f"  {seconds * 1e3:10.4g} ms  {request.model}: {said}")
    front = ", ".join(f"{b:,.0f}: {s * 1e3:.4g}" for b, s in zip(d.front_budget, d.front_latency_s, strict=True))
    return "\n".join([*lines, f"front, {d.unit.upper()}: ms  {front}"])


def _write(out: str, design, answer: dict) -> None:
    from ._memory_plot import plot_memory

    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / ".memory.part.png"
        plot_memory(picture, design, title=f"memory of {answer['system']} for a mix of {len(answer['mix'])}")
        os.replace(picture, folder / "memory.png")
        partial = folder / ".memory.json.part"
        partial.write_text(json.dumps(answer, indent=1, allow_nan=False) + "\n")
        os.replace(partial, folder / "memory.json")
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written: {error.strerror or error}") from None
    print(f"memory.png and memory.json in {folder}/", file=sys.stderr)
