"""DeepSeek-V3 (arXiv 2412.19437): latent attention, 256 experts and a shared one; the main model without the MTP module."""

from ...workload._graph import Workload
from ._llama import llama
from ._records import Experts, Latent
from ._transformer import language_model

SPECS = {
    "deepseek-v3": llama(
        129280, 7168, 61, 128, 128, 18432, latent=Latent(1536, 512, 128, 64, 128),
        experts=Experts(256, 8, 2048, shared=2048, router="sigmoid", corrected=True, dense=(0, 1, 2)),
    )
}  # fmt: skip


def deepseek(name: str, *, batch: int = 1, phase: str = "prefill", seq_len: int | None = None, context: int | None = None,
             imbalance: float = 0.0, absorb: str = "decode", lm_head: bool = True, all_logits: bool = False, dtype: str = "bf16",
             weight_dtype: str | None = None, kv_dtype: str | None = None, head_dtype: str | None = None) -> Workload:  # fmt: skip
    """A DeepSeek as a complete graph; options as those of `mixtral-8x7b`.

    `absorb`: when heads meet the cached latents themselves, the expansion of keys and values being part of queries and output:
    `decode` (default), `always`, `never` (then all tokens' keys and values are expanded anew in each pass). Released weights
    are `weight_dtype="fp8"`. Raises ValueError for sizes and names that are not allowed.
    """
    return language_model(
        name, SPECS[name], batch=batch, phase=phase, seq_len=seq_len, context=context, imbalance=imbalance, absorb=absorb,
        lm_head=lm_head, all_logits=all_logits, dtype=dtype, weight_dtype=weight_dtype, kv_dtype=kv_dtype, head_dtype=head_dtype,
    )  # fmt: skip


BUILDERS = {name: deepseek for name in SPECS}
