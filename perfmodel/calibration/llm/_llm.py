"""The model of serving against measured language models: time to the first token, time per token, throughput; and training steps.

What is known of the software is a mechanism, not a constant of a row:
- gpt-fast: torch.compile with CUDA graphs: separate gate and up products, generated element-wise kernels and weight-only products, the
  LM head on every rank, a power limit where the row states one. Weights alone are narrow, activations and cache have 16 bits; the
  cache holds the prompt and half of the answer in the mean.
- TensorRT-LLM 0.x: separate gate and up products and NCCL alone (fused ones and its own all-reduce came later), element-wise kernels
  that TensorRT's compiler fused, but activations converted to 8 bits by passes of their own. A request costs `REQUEST_S` besides its
  kernels: copies of inputs, sampling, and waiting for the host. fp8 stands for weights, activations and cache.
- throughput of v0.6: all `batch` prompts at once, then all answers (static batch, as its benchmark ran).
- throughput of v1.0: batching in flight. The rows do not say how many sequences: assumed are as many as fit beside the weights in
  `KV_SHARE` of the memory, at most `MOST_SEQUENCES`; steady state (`mixed`).
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...cost._device import Machine, machine
from ...cost._formats import Formats, formats
from ...cost.kernels._constants import read_entries
from ...hardware import _config as systems
from ...models._decoders import Decoder, decoder
from ...serving._kernel_time import Library
from ...serving._llm import Point, Serving, serve
from ...training._plan import published_plan, train
from .._comparison import Comparison
from ._rows import QUANTITIES, Row, read_rows

REQUEST_S = (
    1e-3  # [assumed, with the measured rows in view] fifty calls of a framework at 20 us (LLMCompass measured 21)
)
KV_SHARE = 0.9  # TensorRT-LLM's default share of the memory that is left
MOST_SEQUENCES = 2048.0  # its default largest batch
_UNITS = {"ttft_ms": "ms", "tpot_ms": "ms", "training_step_s": "s"}
_SOFTWARE = {
    "gpt-fast": Library(fused_gate=False, generated=True, replicated_head=True),
    "trtllm 0": Library(fused_gate=False, generated=True, nccl=True, fused_conversion=False),
}


def compare(path: str | Path, parameters: str | Path | None = None) -> list[Comparison]:
    """Predicted against measured, a quantity for each column of `QUANTITIES` that has rows; groups: software, GPU and format.

    Without `parameters`, and for GPUs that it does not have, the shipped constants, fitted to kernels alone.
    Raises ValueError in one line for a file that cannot be used.
    """
    rows, others = read_rows(path)
    if not rows:
        raise ValueError(f"{path}: no row is of a known model and GPU; there are: {', '.join(others)}")
    with jax.enable_x64(True):
        predicted = predictions(rows, parameters)
    found = []
    for quantity in QUANTITIES:
        mine = [i for i, row in enumerate(rows) if row.quantity == quantity]
        if mine:
            found.append(Comparison(
                quantity, _UNITS.get(quantity, "1/s"), predicted[mine], np.asarray([rows[i].measured for i in mine]),
                [rows[i].group for i in mine],
            ))  # fmt: skip
    return found


def left_out(path: str | Path) -> dict[str, int]:
    """How many rows there are of each model or GPU that we do not know."""
    return read_rows(path)[1]


def predictions(rows: list[Row], parameters: str | Path | None = None) -> np.ndarray:
    """[n] what the model says to every row, in the row's unit."""
    ask = {"ttft_ms": _ttft_ms, "tpot_ms": _tpot_ms, "output_tokens_per_s_per_gpu": _static_batch_rate, "training_step_s": _training_s,
           "output_tokens_per_s": _in_flight_rate}  # fmt: skip
    return np.asarray([float(ask[row.quantity](row, parameters)) for row in rows])


def _ttft_ms(row: Row, parameters) -> Any:
    point = Point(
        row.batch or 1.0, 0.0, row.input_tokens, tensor=row.tensor, pipeline=row.pipeline, request_s=REQUEST_S
    )
    return 1e3 * _served(row, parameters, point, "prefill").ttft_s


def _tpot_ms(row: Row, parameters) -> Any:
    point = Point(row.batch or 1.0, row.input_tokens + row.output_tokens / 2, tensor=row.tensor, pipeline=row.pipeline)
    return 1e3 * _served(row, parameters, point, "decode").tpot_s


def _static_batch_rate(row: Row, parameters) -> Any:
    """Output tokens a second and GPU of a batch that begins and ends together."""
    shared = dict(tensor=row.tensor, pipeline=row.pipeline)
    first = _served(
        row, parameters, Point(row.batch, 0.0, row.input_tokens, request_s=REQUEST_S, **shared), "prefill"
    ).ttft_s
    each = _served(
        row, parameters, Point(row.batch, row.input_tokens + row.output_tokens / 2, **shared), "decode"
    ).tpot_s
    return row.batch * row.output_tokens / (first + each * (row.output_tokens - 1)) / row.devices


def _in_flight_rate(row: Row, parameters) -> Any:
    """Output tokens a second of all GPUs; where the row does not state the sequences in flight, as many as fit."""
    shared = dict(tokens=row.input_tokens, new_tokens=row.output_tokens, tensor=row.tensor, pipeline=row.pipeline)
    batch = row.batch
    if not batch:
        room = _served(row, parameters, Point(1.0, **shared), "mixed").largest_batch
        batch = float(np.clip(np.floor(KV_SHARE * room), 1.0, MOST_SEQUENCES))
    return _served(row, parameters, Point(batch, **shared), "mixed").tokens_per_s


def _training_s(row: Row, parameters) -> Any:
    node = systems.load("dgx-h100" if row.system.startswith("h100") else "dgx-a100")
    plan = published_plan(
        row.model, devices=int(row.devices), batch=int(row.batch), sequence=int(row.input_tokens), tensor=int(row.tensor),
        pipeline=int(row.pipeline), recompute=row.recompute or "none",
    )  # fmt: skip
    with jax.enable_x64(True):
        of = node if parameters is None else machine(node, parameters=parameters)
    return train(row.model, of, plan).step_s


def _served(row: Row, parameters, point: Point, phase: str) -> Serving:
    of, known = _machine(row.system, None if parameters is None else str(parameters)), decoder(row.model)
    if row.power_w and of.gpu is not None:
        of = eqx.tree_at(lambda m: m.gpu.tdp_w, of, jnp.asarray(row.power_w))
    library, formed = _software(row, of)
    point = Point(*[jnp.asarray(x, float) for x in point])
    return _program(known, phase, library)(of, formed, point)


@lru_cache(maxsize=32)
def _machine(system: str, parameters: str | None) -> Machine:
    """One GPU; with the shipped constants where the parameter file has none of it."""
    of = systems.load(system)
    known = parameters is not None and any(name in {e.gpu for e in read_entries(parameters)} for name in of.gpu_names)
    return machine(of, parameters=parameters if known else None)


def _software(row: Row, of: Machine) -> tuple[Library, Formats]:
    library = _SOFTWARE.get(row.software if row.software != "trtllm" else f"trtllm {row.version[0]}", Library())
    narrow = row.dtype not in ("fp16", "bf16")
    if row.software == "gpt-fast" and narrow:
        return library, formats(of, "bf16", row.dtype, generated=True)[0]
    wide = "fp8" if row.dtype in ("fp4", "nvfp4") else None  # libraries keep the cache in 8 bits beside 4-bit products
    return library, formats(of, row.dtype, kv_dtype=wide)[0]


@lru_cache(maxsize=64)
def _program(model: Decoder, phase: str, library: Library):
    """One compiled program a model, phase and software, for all machines: their names, which are static, are taken off."""

    @jax.jit
    def call(of: Machine, formed: Formats, point: Point) -> Serving:
        return serve(of, model, formed, point, phase=phase, library=library)

    def run(of: Machine, formed: Formats, point: Point) -> Serving:
        return call(replace(of, name="", gpu_name="gpu", devices=1), formed, point)

    return run
