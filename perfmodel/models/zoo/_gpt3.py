"""GPT-3 175B (Brown et al., arXiv 2005.14165, table 2.1), the GPTs that Megatron-LM trained, and a GPT of 13B with sparse weights.

GPT-3's attention alternates dense and banded layers whose band is not published; here all are dense. Weights were never
released: 174.6e9 parameters follow from the table. The sparse GPT is the one of SambaNova (arXiv 2304.05511; SN40L, arXiv
2405.07518): GPT 13B with seven of eight weights of the blocks' dense layers pruned, tables and biases as they were; its dense
equivalent, 12,853,386,240 parameters, is `weight_dtype="bf16"`. Megatron's 22B, 530B (Megatron-Turing NLG) and 1T:
Korthikanti et al., arXiv 2205.05198, table 3; their vocabulary is 51,200, GPT-2's padded to a multiple of 128 x 8.
"""

from ._gpt2 import gpt
from ._transformer import language_models

_SIZES = {"gpt3-175b": (12288, 96, 96), "sparse-gpt-13b": (5120, 40, 40)}  # model width, heads, blocks
_MEGATRON = {"megatron-22b": (6144, 64, 48), "turing-530b": (20480, 128, 105), "megatron-1t": (25600, 160, 128)}
SPECS = {name: gpt(*size, positions=2048) for name, size in _SIZES.items()}
SPECS |= {name: gpt(*size, vocabulary=51200, positions=2048) for name, size in _MEGATRON.items()}

BUILDERS = language_models({name: SPECS[name] for name in ("gpt3-175b", *_MEGATRON)}) | language_models(
    {"sparse-gpt-13b": SPECS["sparse-gpt-13b"]}, weight_dtype="bf16-sparse87.5"
)
