"""What runs through a language model in one pass: the phase, the tokens, and what stays in or leaves the KV cache."""

from typing import NamedTuple

from ..._names import unknown_name
from ...workload._dtypes import Precision, precision
from .._net import Net, Tensor

PHASES = ("prefill", "decode", "train")


class Pass(NamedTuple):
    """`tokens` pass through, for each of `batch` sequences, after `context` that are in the cache already.

    `cached`: the keys and values of this pass are left in memory for later ones, `kv_bits` each. `all_logits`: the LM head sees
    every token, else the last of each sequence. `imbalance`, `absorb`: see `_experts` and `_latent`. `causal`: tokens see what is before
    them.
    """

    phase: str
    batch: int
    tokens: int
    context: int
    cached: bool
    kv_bits: float
    all_logits: bool
    imbalance: float = 0.0
    absorb: bool = False
    causal: bool = False

    def past(self, window: int = 0) -> int:
        """Cached tokens that the new ones look at; of a sliding window the token itself takes one place."""
        return min(self.context, window - 1) if window else self.context

    def kept(self, window: int = 0) -> int:
        """Tokens of a sequence in the cache after the pass: a sliding window rolls over the oldest."""
        held = self.context + self.tokens
        return (min(held, window) if window else held) if self.cached else 0


def pass_of(name: str, *, phase: str = "prefill", batch: int = 1, seq_len: int | None = None, context: int | None = None,
            dtype: str = "bf16", kv_dtype: str | None = None, all_logits: bool = False, cached: bool = True,
            default: int = 1024, limit: int = 0, imbalance: float = 0.0, absorb: str = "decode") -> Pass:  # fmt: skip
    """The pass that options ask for. Not given: `seq_len` is `default` tokens, in decode 1; `context` 0, in decode 1024.

    **Arguments:** `limit`: positions in a learned table, 0 where there is none. `cached=False`: nobody decodes after a prefill.

    Raises ValueError for an unknown phase or dtype, sizes out of range, a context in training, more tokens than `limit`.
    """
    if phase not in PHASES:
        raise unknown_name(f"{name}: phase", phase, PHASES)
    decode, training = phase == "decode", phase == "train"
    tokens = _least(
        name, "seq_len", (1 if decode else min(default, limit or default)) if seq_len is None else seq_len, 1
    )
    usual = max(min(1024, limit - tokens if limit else 1024), 0) if decode else 0
    past = _least(name, "context", usual if context is None else context, 0)
    if training and past:
        raise ValueError(f"{name}: context is {past}; allowed in training: 0")
    if limit and tokens + past > limit:
        what = "context + seq_len" if past else "seq_len"
        raise ValueError(f"{name}: {what} is {tokens + past}; allowed: 1 to {limit} (learned positions)")
    if absorb not in ("decode", "always", "never"):
        raise unknown_name(f"{name}: absorb", absorb, ("decode", "always", "never"))
    return Pass(
        phase, _least(name, "batch", batch, 1), tokens, past, (cached or decode) and not training,
        dense_precision(kv_dtype or dtype, "kv_dtype" if kv_dtype else "dtype").bits, all_logits or training, float(imbalance),
        absorb == "always" or (absorb == "decode" and decode),
    )  # fmt: skip


def dense_precision(name: str, field: str) -> Precision:
    """The format `name`, of something other than the weights of blocks. Raises ValueError for an unknown or a sparse one."""
    form = precision(name, field)
    if form.density != 1:
        raise ValueError(f"{field} is {name!r}; only weights may be sparse (weight_dtype)")
    return form


def _least(name: str, option: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: {option} is {value!r}; allowed: an integer of at least {least}")
    return value


def leave_in_memory(net: Net, x: Tensor, nbytes: float) -> None:
    """The row that made `x` also writes `nbytes` of it to memory, whoever reads it besides (the KV cache)."""
    net.rows[x.parts[-1][0]]["outside_out_bytes"] += nbytes
