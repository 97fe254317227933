"""The command `serve`: a language model in service at one point of operation."""

_BYTES = (("weight_bytes", "weights"), ("kv_cache_bytes", "KV cache"), ("device_weight_bytes", "weights a device"),
          ("device_kv_bytes", "KV cache a device"), ("device_activation_bytes", "activations a device"))  # fmt: skip


def add_serve_flags(made) -> None:
    """Flags of the command."""
    made.epilog = "example: perfmodel serve --model llama-3-70b --system dgx-h100 --phase decode --batch 32 --context 4096 --dtype fp8"
    made.add_argument("--model", required=True, metavar="NAME|DIR", help="a decoder, or a directory with config.json")
    made.add_argument("--system", required=True, metavar="NAME|FILE", help="catalogue name or YAML file")
    made.add_argument(
        "--phase",
        default="decode",
        metavar="NAME",
        help="prefill, decode or mixed (continuous batching in a steady state)",
    )
    made.add_argument("--batch", type=int, default=1, metavar="N", help="sequences, in all")
    made.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="tokens in the cache; in prefill and mixed the prompt (default: 1024, or what the model allows)",
    )
    made.add_argument(
        "--context-limit",
        type=int,
        metavar="N",
        help="longest sequence to allow, 0: any (default: as the model's publisher states)",
    )
    made.add_argument(
        "--dtype",
        default="bf16",
        metavar="D",
        help="of weights, activations and KV cache: bf16, fp8, int8, int4, nvfp4, ...",
    )
    made.add_argument("--weight-dtype", metavar="D", help="of the weights (int4-g128: a scale and a zero for 128)")
    made.add_argument("--kv-dtype", metavar="D", help="of the KV cache")
    made.add_argument("--head-dtype", metavar="D", help="of token table and LM head (default: as the weights)")
    made.add_argument("--tensor-parallel", type=int, metavar="N", help="ranks (default: all devices of the system)")
    made.add_argument("--pipeline-parallel", type=int, default=1, metavar="N", help="stages")
    made.add_argument("--expert-parallel", type=int, default=1, metavar="N", help="ranks that experts are dealt to")
    made.add_argument("--data-parallel", type=int, default=1, metavar="N", help="replicas")
    made.add_argument("--new-tokens", type=int, default=256, metavar="N", help="of an answer (mixed)")
    made.add_argument(
        "--chunk",
        type=int,
        default=0,
        metavar="N",
        help="tokens of a prompt that pass at a time (0: all; prefill, mixed)",
    )
    made.add_argument(
        "--draft-model", metavar="NAME", help="speculative decoding: the model that drafts (default: drafting is free)"
    )
    made.add_argument(
        "--draft-tokens", type=int, default=0, metavar="N", help="speculative decoding: tokens drafted a step (0: none)"
    )
    made.add_argument("--acceptance", type=float, default=0.8, metavar="X", help="chance that a drafted token is kept")
    made.add_argument("--offload", action="store_true", help="also use memory behind the host for what does not fit")
    made.add_argument("--kv-tier", metavar="NAME", help="memory tier where the KV cache begins")
    made.add_argument(
        "--block-tokens", type=int, default=0, metavar="N", help="paged KV cache: tokens of a block (0: no pages)"
    )
    made.add_argument(
        "--pim", action="store_true", help="decode attention, and products of one token, by processors in the memory"
    )
    made.add_argument(
        "--step-overhead", type=float, default=0.0, metavar="S", help="host time of a pass that devices wait for"
    )
    made.add_argument(
        "--request-overhead",
        type=float,
        default=0.0,
        metavar="S",
        help="time of a request before and behind its prefill",
    )
    made.add_argument(
        "--usd-per-device-hour", type=float, metavar="X", help="price (default: a stated formula, docs/serving.md)"
    )
    made.add_argument("--parameters", metavar="FILE", help="constants of GPU kernels that `calibrate` fitted")
    made.add_argument("--source", metavar="NAME", help="library of --parameters to take (default: the first)")


def served(arguments) -> tuple[dict, str]:
    """(JSON, text). Raises ValueError for bad input."""
    import perfmodel as pm
    from perfmodel.serving import Request, answer

    a = arguments
    same = {name: getattr(a, name) for name in Request.__dataclass_fields__ if hasattr(a, name)}
    request = Request(**same, step_s=a.step_overhead, request_s=a.request_overhead, usd_per_hour=a.usd_per_device_hour)
    told = answer(request, pm.systems.load(a.system), parameters=a.parameters, source=a.source)
    return told, _text(told)


def _text(t: dict) -> str:
    degrees = f"tensor {t['tensor_parallel']} x pipeline {t['pipeline_parallel']} x data {t['data_parallel']}"
    lines = [
        f"{t['model']} on {t['devices']} of {t['system']} ({degrees}), {t['phase']}, batch {t['batch']}, context {t['context']}"
    ]

    def line(name: str, value: str) -> None:
        lines.append(f"{name:24}{value}")

    for key, name in (("ttft_s", "first token"), ("tpot_s", "time per token")):
        if t[key] is not None:
            line(name, f"{t[key] * 1e3:.4g} ms")
    rates = f"{t['tokens_per_s']:,.4g} tokens/s, {t['tokens_per_s_per_user']:,.4g} a user, {t['tokens_per_s_per_device']:,.4g} a device"
    line("throughput", rates)
    if "tokens_per_step" in t:
        line(
            "speculative",
            f"{t['tokens_per_step']:.3g} tokens a step, verify {t['verify_s'] * 1e3:.4g} ms, draft {t['draft_s'] * 1e3:.4g} ms a token",
        )
    line("MBU, MFU", f"{t['mbu']:.1%}, {t['mfu']:.1%}")
    for key, name in _BYTES:
        line(name, f"{t[key] / 1e9:,.4g} GB")
    line("KV cache a token", f"{t['kv_bytes_per_token'] / 1024:,.4g} KiB")
    if t["fits"]:
        line("fits", f"yes; largest batch at this context {t['largest_batch']:,}")
    else:
        least = t["least_devices"]
        line(
            "fits",
            f"NO: {t['short_bytes'] / 1e9:,.4g} GB too much; "
            + (f"{least} devices would hold it" if least else "no number of devices holds it"),
        )
    line("energy", f"{t['energy_j_per_token']:.4g} J a token, {t['power_w']:,.4g} W")
    line(
        "cost",
        f"{t['usd_per_million_tokens']:.4g} USD a million tokens at {t['usd_per_device_hour']:.3g} USD a device and hour",
    )
    total = sum(t["seconds"].values())
    shares = ", ".join(f"{name} {x / total:.0%}" for name, x in t["seconds"].items() if x > 0.005 * total)
    line("time of a pass", shares)
    line(
        "times are",
        "of kernels fitted to measurements"
        if t["time_model"] != "roofline"
        else "a bound: a roofline, nothing measured",
    )
    return "\n".join(lines)
