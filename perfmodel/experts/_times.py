"""How long a model runs on a node, as a composition of experts needs to know it: from the model of language models in service."""

from pathlib import Path
from typing import NamedTuple

from jaxtyping import Array, Float

from ..cost._device import machine
from ..cost._formats import formats
from ..hardware import System
from ..models._decoders import decoder
from ..serving._llm import Point, serve


class ModelTimes(NamedTuple):
    """A prompt is read in `prefill_s`, which gives the first token; every other token takes `decode_s` in the mean."""

    prefill_s: Float[Array, ""]
    decode_s: Float[Array, ""]

    def request_s(self, new_tokens):
        """Time to read a prompt and write `new_tokens` tokens."""
        return self.prefill_s + (new_tokens - 1.0) * self.decode_s


def model_times(system: System, model: str, *, batch=1, prompt, new_tokens, dtype: str = "bf16", before_s=0.0, step_s=0.0,
                parameters: str | Path | None = None) -> ModelTimes:  # fmt: skip
    """Times of a language model sharded over all devices of a system (tensor parallelism), `batch` prompts of `prompt` tokens at once.

    **Arguments:** `before_s`, `step_s`: of the host, before the prompt and in every pass.  `parameters`: see `machine`.
    `batch, prompt, new_tokens, before_s, step_s` may be traced. Decode is taken in the middle of the answer.

    Raises ValueError for an unknown model or dtype.
    """
    node, what = machine(system, parameters=parameters), decoder(model)
    form, density = formats(node, dtype, what.weights or None)
    at = Point(batch=batch * 1.0, tokens=prompt * 1.0, tensor=float(node.devices), step_s=step_s, request_s=before_s)
    first = serve(node, what, form, at, phase="prefill", density=density)
    # the mean over tokens 2 to `new_tokens`: attention is affine in the context
    mean = at._replace(tokens=1.0, context=prompt + (new_tokens - 1.0) / 2)
    then = serve(node, what, form, mean, phase="decode", density=density)
    return ModelTimes(first.ttft_s, then.tpot_s)
