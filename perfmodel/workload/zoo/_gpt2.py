"""GPT-2 decoders (Radford et al. 2019; sizes of the released checkpoints), prefill of a whole sequence."""

from .._dtypes import precision
from .._graph import GraphBuilder, Workload
from .._operators import operator_row

_SIZES = {  # model width, heads, blocks
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 16, 24),
    "gpt2-large": (1280, 20, 36),
    "gpt2-xl": (1600, 25, 48),
}
_VOCABULARY, _POSITIONS = 50257, 1024


def gpt2(name: str, *, batch: int = 1, seq_len: int = 1024, lm_head: bool = False, dtype: str = "int8") -> Workload:
    """GPT-2 as a complete graph: embedding, 12 operators a block, final norm, and optionally the (tied) LM head.

    Attention is full (not causal), one row a GEMM with `groups = heads * batch`, as accelerators without masking run it.
    Raises ValueError when `seq_len` exceeds the 1024 learned positions.
    """
    if not 1 <= seq_len <= _POSITIONS:
        raise ValueError(f"{name}: seq_len is {seq_len}; allowed: 1 to {_POSITIONS} (learned positions)")
    width, heads, blocks = _SIZES[name]
    bits = precision(dtype).bits
    rows, size = batch * seq_len, width // heads
    graph = GraphBuilder(name, batch)

    def vector(label, kind, columns, source, **more):
        return graph.add(label, operator_row(kind, k=columns, p=rows, bits=bits, **more), source)

    def linear(label, columns, depth, source, bias=True, **more):
        parameters = more.pop("parameters", columns * depth + columns * bias)
        return graph.add(
            label, operator_row("gemm", k=columns, c=depth, p=rows, bits=bits, parameters=parameters), source
        )

    def attention(label, k, c, source):
        row = operator_row("attention_gemm", groups=heads * batch, k=k, c=c, p=seq_len, bits=bits)
        return graph.add(label, row, source)

    # the pass reads one token row and one position row per position, straight from memory
    tables = (_VOCABULARY + _POSITIONS) * width
    embed = operator_row("embedding", k=width, p=rows, bits=bits, parameters=tables, weight_elements=0)
    here = graph.add("embed", embed, [], outside_bytes=2 * rows * width * bits / 8)
    tensor = rows * width * bits / 8
    for block in range(blocks):
        label = f"h{block}"
        normed = vector(f"{label}.ln_1", "layer_norm", width, [here], parameters=2 * width)
        qkv = linear(f"{label}.attn.qkv", 3 * width, width, [normed])
        scores = attention(f"{label}.attn.scores", seq_len, size, [(qkv, 2 * tensor)])
        row = operator_row("softmax", groups=heads * batch, k=seq_len, p=seq_len, bits=bits)
        weights = graph.add(f"{label}.attn.softmax", row, [scores])
        values = attention(f"{label}.attn.values", size, seq_len, [weights, (qkv, tensor)])
        out = linear(f"{label}.attn.proj", width, width, [values])
        here = vector(f"{label}.add_1", "add", width, [out, here], in_elements=2 * rows * width)
        normed = vector(f"{label}.ln_2", "layer_norm", width, [here], parameters=2 * width)
        hidden = linear(f"{label}.mlp.fc", 4 * width, width, [normed])
        hidden = vector(f"{label}.mlp.gelu", "gelu", 4 * width, [hidden])
        out = linear(f"{label}.mlp.proj", width, 4 * width, [hidden])
        here = vector(f"{label}.add_2", "add", width, [out, here], in_elements=2 * rows * width)
    here = vector("ln_f", "layer_norm", width, [here], parameters=2 * width)
    if lm_head:  # tied to the token table: read, but not stored again
        row = operator_row(
            "gemm", k=_VOCABULARY, c=width, p=rows, bits=bits, parameters=0, weight_elements=_VOCABULARY * width
        )
        graph.add("lm_head", row, [here])
    return graph.build()


BUILDERS = {name: gpt2 for name in _SIZES}
