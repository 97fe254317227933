"""The command `train`: a training step of a language model on as many packages as it needs."""

import json
import os
import sys
from argparse import BooleanOptionalAction
from pathlib import Path

_PARTS = ("forward_s", "backward_s", "recompute_s", "tensor_collectives_s", "bubble_s", "point_to_point_s",
          "gradient_collectives_s", "optimizer_s")  # fmt: skip
_MEMORY = ("weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes", "workspace_bytes")


def add_train_flags(made) -> None:
    """Flags of the command."""
    made.epilog = (
        "example: perfmodel train --model gpt3-175b --system dgx-a100 --batch 64 --sequence 2048 --tensor-parallel 8 --pipeline-parallel 8 "
        "--recompute selective"
    )
    made.add_argument(
        "--model", required=True, metavar="NAME|DIR", help="a dense language model, or a directory with config.json"
    )
    made.add_argument(
        "--system", required=True, metavar="NAME|FILE", help="one package; as many are used as are needed"
    )
    made.add_argument(
        "--batch", type=int, required=True, metavar="N", help="sequences of a step, on all devices together"
    )
    made.add_argument("--sequence", type=int, required=True, metavar="N", help="tokens of a sequence")
    made.add_argument("--tensor-parallel", type=int, metavar="N", help="ranks (default: all devices of the system)")
    made.add_argument("--pipeline-parallel", type=int, default=1, metavar="N", help="stages")
    made.add_argument("--data-parallel", type=int, metavar="N", help="replicas (default: 1, or what --devices leaves)")
    made.add_argument("--devices", type=int, metavar="N", help="in all: tensor x pipeline x data parallel")
    made.add_argument("--microbatch", type=int, metavar="N",
                      help="sequences that pass together (default: 1 with stages, else the most up to 4 that divide)")  # fmt: skip
    made.add_argument("--interleave", type=int, metavar="N",
                      help="parts of the model that each stage holds (default: 3 where all divides so, else 1)")  # fmt: skip
    made.add_argument("--recompute", default="none", metavar="NAME", help="none, selective (core attention) or full")
    made.add_argument("--sequence-parallel", action=BooleanOptionalAction, default=None,
                      help="tensor ranks share out norms and dropout by tokens (default: with selective recompute)")  # fmt: skip
    made.add_argument("--optimizer", default="adam", metavar="NAME", help="adam, momentum or sgd")
    made.add_argument(
        "--shard-optimizer", action="store_true", help="replicas share out the optimizer's state (ZeRO 1)"
    )
    made.add_argument("--overlap-gradients", action="store_true", help="add up gradients beside the last backward pass")
    made.add_argument(
        "--dropout", metavar="on|off", help="masks are drawn and kept (default: on where the MLP is not gated)"
    )
    made.add_argument("--parameters", metavar="FILE", help="constants of GPU kernels that `calibrate` fitted")
    made.add_argument("--out", metavar="DIR", help="where to write train.json and train.png, the step taken apart")


def trained(a) -> tuple[dict, str]:
    """(JSON, text) of the command. Raises ValueError in one line for bad input; a model too large is an answer (`fits: false`)."""
    import jax

    import perfmodel as pm
    from perfmodel._names import unknown_name
    from perfmodel.cost import machine
    from perfmodel.training import FITTED, least_devices, train, usual_plan

    if a.dropout not in (None, "on", "off"):
        raise unknown_name("--dropout", a.dropout, ("on", "off"))
    with jax.enable_x64(True):
        device = machine(pm.systems.load(a.system), parameters=a.parameters)
    try:
        plan = usual_plan(
            a.model, batch=a.batch, sequence=a.sequence, microbatch=a.microbatch, interleave=a.interleave,
            tensor_parallel=device.devices if a.tensor_parallel is None else a.tensor_parallel,
            pipeline_parallel=a.pipeline_parallel, data_parallel=_replicas(a, device.devices), recompute=a.recompute,
            sequence_parallel=a.sequence_parallel, optimizer=a.optimizer, shard_optimizer=a.shard_optimizer,
            overlap_gradients=a.overlap_gradients,
        )  # fmt: skip
        step = train(a.model, device, plan, dropout=None if a.dropout is None else a.dropout == "on")
        least = (
            None
            if step.fits
            else least_devices(a.model, device, plan, dropout=None if a.dropout is None else a.dropout == "on")
        )
    except ValueError as error:
        field, _, rest = str(error).partition(" ")
        raise ValueError(f"--{field.replace('_', '-')} {rest}" if hasattr(a, field) else str(error)) from None
    answer = _told(a, plan, device, step, least, FITTED)
    if a.out:
        _write(a.out, answer)
    return answer, _text(answer)


def _replicas(a, in_package: int) -> int:
    if a.devices is None:
        return 1 if a.data_parallel is None else a.data_parallel
    group = (in_package if a.tensor_parallel is None else a.tensor_parallel) * a.pipeline_parallel
    if a.devices < 1 or group < 1 or a.devices % group:
        raise ValueError(f"--devices is {a.devices}; allowed: a multiple of tensor x pipeline parallel = {group}")
    if a.data_parallel not in (None, a.devices // group):
        raise ValueError(
            f"--data-parallel is {a.data_parallel}; allowed with {a.devices} devices: {a.devices // group}"
        )
    return a.devices // group


def _told(a, plan, device, step, least, constants) -> dict:
    from dataclasses import asdict
    from math import ceil

    seconds = float(step.step_s)
    tokens = plan.batch * plan.sequence
    needed, capacity = float(step.needed_bytes), float(step.capacity_bytes)
    return dict(
        model=a.model, system=device.name, **asdict(plan), devices=plan.devices, packages=ceil(plan.devices / device.devices),
        microbatches=plan.microbatches, step_s=seconds, tokens_per_s=tokens / seconds,
        tokens_per_s_per_device=tokens / seconds / plan.devices,
        mfu=float(step.mfu), hfu=float(step.hfu), model_flops=2 * float(step.model_macs), hardware_flops=2 * float(step.hardware_macs),
        breakdown={name: float(getattr(step, name)) for name in _PARTS}, fits=bool(step.fits), needed_bytes=needed,
        capacity_bytes=capacity, missing_bytes=max(needed - capacity, 0.0), least_devices=least,
        memory={name: float(getattr(step.memory, name)) for name in (*_MEMORY, "layer_activations_bytes")},
        parameters_per_device=float(step.memory.parameters), energy_j=float(step.energy_j),
        energy_per_token_j=float(step.energy_j) / tokens, power_w=float(step.energy_j) / seconds,
        constants={
            "matrix_slowdown": {"value": float(constants.matrix_slowdown), "source": "fitted"},
            "stream_slowdown": {"value": float(constants.stream_slowdown), "source": "not fitted"},
            "overlap": {"value": float(constants.overlap), "source": "not fitted"},
        },
    )  # fmt: skip


def _text(t: dict) -> str:
    lines = [
        f"{t['model']} on {t['devices']} devices of {t['packages']} x {t['system']}: tensor {t['tensor_parallel']} x pipeline "
        f"{t['pipeline_parallel']} x data {t['data_parallel']}, {t['microbatches']} microbatches of {t['microbatch']}, "
        f"recompute {t['recompute']}{', sequence parallel' if t['sequence_parallel'] else ''}",
        f"{'step':24}{t['step_s']:<12.5g}s",
    ]
    for name, value in t["breakdown"].items():
        lines.append(f"  {name[:-2].replace('_', ' '):22}{value:<12.5g}s{value / t['step_s']:8.1%}")
    for name, value, unit in (
        ("tokens", t["tokens_per_s"], "tokens/s"), ("tokens a device", t["tokens_per_s_per_device"], "tokens/s"),
        ("MFU", 100 * t["mfu"], "%"), ("HFU", 100 * t["hfu"], "% with what is recomputed"), ("energy", t["energy_j"], "J a step"),
        ("power", t["power_w"] / t["devices"], "W a device"),
    ):  # fmt: skip
        lines.append(f"{name:24}{value:<12.5g}{unit}")
    lines.append(f"{'memory of a device':24}{t['needed_bytes'] / 1e9:<12.5g}GB of {t['capacity_bytes'] / 1e9:.5g}")
    for name in _MEMORY:
        lines.append(f"  {name[:-6]:22}{t['memory'][name] / 1e9:<12.5g}GB")
    if not t["fits"]:
        lines.append(
            f"DOES NOT FIT: {t['missing_bytes'] / 1e9:.5g} GB too much; "
            + (
                f"{t['least_devices']} devices would hold it"
                if t["least_devices"]
                else "neither more tensor ranks nor more stages would hold it"
            )
        )
    kept = ", ".join(f"{name} {c['value']:g} ({c['source']})" for name, c in t["constants"].items())
    lines.append(f"{'constants':24}{kept}")
    return "\n".join(lines)


def _write(out: str, answer: dict) -> None:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _picture(folder / ".train.part.png", answer)
        os.replace(folder / ".train.part.png", folder / "train.png")
        (folder / ".train.json.part").write_text(json.dumps(answer, indent=1, allow_nan=False) + "\n")
        os.replace(folder / ".train.json.part", folder / "train.json")
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written: {error.strerror or error}") from None
    print(f"train.png and train.json in {folder}/", file=sys.stderr)


def _picture(path: Path, t: dict) -> None:
    """Two bars taken apart: seconds of the step, bytes of the fullest device."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    for axes, amounts, unit, scale in (
        (figure.add_subplot(1, 2, 1), t["breakdown"], "s", 1.0),
        (figure.add_subplot(1, 2, 2), {name: t["memory"][name] for name in _MEMORY}, "GB", 1e9),
    ):
        names = [name.rsplit("_", 1)[0].replace("_", " ") for name in amounts]
        values = [value / scale for value in amounts.values()]
        bars = axes.barh(names, values, color="#4878a8")
        axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
        axes.set_xlim(0, 1.18 * max([*values, 1e-12]))
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
    first, second = figure.axes
    first.set_title(f"step {t['step_s']:.4g} s, MFU {t['mfu']:.1%}", fontsize=10)
    second.set_title(f"{t['needed_bytes'] / 1e9:.4g} GB of {t['capacity_bytes'] / 1e9:.4g} a device", fontsize=10)
    second.axvline(t["capacity_bytes"] / 1e9, color="#b04030", linewidth=1)
    second.set_xlim(0, 1.18 * max(t["capacity_bytes"] / 1e9, max(t["memory"][name] for name in _MEMORY) / 1e9))
    figure.suptitle(f"{t['model']} on {t['devices']} devices of {t['system']}", fontsize=11)
    figure.savefig(path, dpi=130)
