"""Configurations of decoders, by `model_type`, as records of the zoo. What a class of the library has that its configuration
does not say (biases, the order of norms, tied heads) is said here."""

from collections.abc import Callable

from ...zoo._bloom import bloom
from ...zoo._falcon import falcon
from ...zoo._gpt2 import gpt
from ...zoo._llama import llama
from ...zoo._opt import opt
from ...zoo._records import Experts, Latent, Transformer
from ._fields import MOST_LAYERS, Config

_MOST_EXPERTS = 2**14


def _shape(config: Config) -> tuple[int, int, int, int]:
    """Vocabulary, width, layers, heads, under the names that they have had."""
    return (
        config.size("vocab_size", most=2**30), config.size("hidden_size", "n_embd", "d_model", "n_embed"),
        config.size("num_hidden_layers", "n_layer", "num_layers", most=MOST_LAYERS),
        config.size("num_attention_heads", "n_head", "num_heads"),
    )  # fmt: skip


def _head_dim(config: Config, width: int, heads: int) -> int:
    """Elements of a head: read where given, else the width must divide."""
    if not config.has("head_dim") and width % heads:
        raise ValueError(f"{config.where}: number of heads is {heads}; allowed: a divisor of the width, {width}")
    return config.size("head_dim", default=max(width // heads, 1))


def _windows(config: Config, layers: int, default: str = "sliding_attention") -> tuple[int, ...]:
    """Of each layer its sliding window: `sliding_window`, in the layers that `layer_types` says, else in all."""
    window = config.size("sliding_window", default=0, least=0)
    if not window:
        return ()
    kinds = config.names("layer_types") or [default] * layers
    if len(kinds) != layers:
        raise ValueError(f"{config.where}: layer_types has {len(kinds)} entries; allowed: {layers}, one a layer")
    windows = tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    return windows if any(windows) else ()


def _llama(config: Config, **more) -> Transformer:
    """Llama and what follows it: field names of all of them."""
    vocabulary, width, layers, heads = _shape(config)
    kv = config.divisor("num_key_value_heads", of=heads, what="num_attention_heads", default=heads)
    size, bias = _head_dim(config, width, heads), config.flag("attention_bias", default=False)
    fields = dict(
        head_dim=size, rotary=max(1, int(size * config.share("partial_rotary_factor", default=1.0))), qkv_bias=bias,
        out_bias=bias, mlp_bias=config.flag("mlp_bias", default=False), tied=config.flag("tie_word_embeddings", default=False),
        activation=config.activation("hidden_act", "hidden_activation", "activation_function", default="silu"),
    )  # fmt: skip
    if size * heads == width:
        fields["head_dim"] = 0  # as the zoo writes it
    return llama(
        vocabulary,
        width,
        layers,
        heads,
        kv,
        more.pop("hidden", 0) or config.size("intermediate_size"),
        **(fields | more),
    )


def _mistral(config: Config, **more) -> Transformer:
    return _llama(config, **(dict(windows=_windows(config, config.size("num_hidden_layers", most=MOST_LAYERS))) | more))


def _mixtral(config: Config) -> Transformer:
    experts = Experts(
        config.size("num_local_experts", most=_MOST_EXPERTS), 0, config.size("intermediate_size"), router="softmax"
    )
    return _mistral(config, experts=_with_choice(config, experts))


def _with_choice(config: Config, experts: Experts) -> Experts:
    return experts._replace(chosen=config.size("num_experts_per_tok", "moe_topk", most=experts.count))


def _qwen2(config: Config, **more) -> Transformer:
    layers = config.size("num_hidden_layers", most=MOST_LAYERS)
    windows: tuple[int, ...] = ()
    if config.flag("use_sliding_window", default=False):
        first = config.size("max_window_layers", default=28, least=0)
        window = config.size("sliding_window", default=0, least=0)
        windows = (
            _windows(config, layers)
            if config.has("layer_types")
            else tuple(window * (i >= first) for i in range(layers))
        )
    fields = dict(qkv_bias=True, out_bias=False, windows=windows if any(windows) else ())
    return _llama(config, **(fields | more))


def _qwen3(config: Config, **more) -> Transformer:
    bias = config.flag("attention_bias", default=False)
    return _qwen2(config, **(dict(qkv_bias=bias, out_bias=bias, qk_norm=True) | more))


def _qwen_experts(config: Config, shared: bool) -> dict:
    layers = config.size("num_hidden_layers", most=MOST_LAYERS)
    step = config.size("decoder_sparse_step", default=1)
    plain = (
        set(config.sizes("mlp_only_layers", default=[], most=MOST_LAYERS, least=0))
        if config.data.get("mlp_only_layers")
        else set()
    )
    experts = Experts(
        config.size("num_experts", most=_MOST_EXPERTS), 0, config.size("moe_intermediate_size"),
        shared=config.size("shared_expert_intermediate_size", default=0, least=0) if shared else 0, shared_gate=shared,
        dense=tuple(i for i in range(layers) if i in plain or (i + 1) % step),
    )  # fmt: skip
    return dict(experts=_with_choice(config, experts))


def _deepseek(config: Config) -> Transformer:
    vocabulary, width, layers, heads = _shape(config)
    latent = Latent(
        config.size("q_lora_rank", default=0), config.size("kv_lora_rank"), config.size("qk_nope_head_dim"),
        config.size("qk_rope_head_dim"), config.size("v_head_dim"),
    )  # fmt: skip
    experts = None
    if config.has("n_routed_experts"):
        each, every = config.size("moe_intermediate_size"), config.size("moe_layer_freq", default=1)
        first = config.size("first_k_dense_replace", default=0, least=0)
        newer = config.text("model_type") != "deepseek_v2"
        experts = _with_choice(config, Experts(
            config.size("n_routed_experts", most=_MOST_EXPERTS), 0, each,
            shared=each * config.size("n_shared_experts", default=0, least=0, most=_MOST_EXPERTS),
            router=config.choice(
                "scoring_func", allowed={"softmax": "softmax", "sigmoid": "sigmoid"}, default="sigmoid" if newer else "softmax"
            ),
            corrected=config.text("topk_method", default="noaux_tc" if newer else "greedy") == "noaux_tc",
            dense=tuple(i for i in range(layers) if i < first or i % every),
        ))  # fmt: skip
    bias = config.flag("attention_bias", default=False)
    return llama(
        vocabulary, width, layers, heads, heads, config.size("intermediate_size"), latent=latent, experts=experts, qkv_bias=bias,
        out_bias=bias, tied=config.flag("tie_word_embeddings", default=False),
        activation=config.activation("hidden_act", default="silu"),
    )  # fmt: skip


def _gemma(config: Config, **more) -> Transformer:
    fields = dict(
        activation=config.activation("hidden_activation", "hidden_act", default="gelu"), scaled=True,
        tied=config.flag("tie_word_embeddings", default=True),
    )  # fmt: skip
    return _llama(config, **(fields | more))


def _gemma2(config: Config) -> Transformer:
    layers = config.size("num_hidden_layers", most=MOST_LAYERS)
    windows = _windows(config, layers)
    if windows and not config.has("layer_types"):  # every other layer, the first with a window
        windows = tuple(window * (i % 2 == 0) for i, window in enumerate(windows))
    return _gemma(
        config, windows=windows, order="sandwich", softcap=config.has("attn_logit_softcapping"),
        head_softcap=config.has("final_logit_softcapping"),
    )  # fmt: skip


def _phi(config: Config) -> Transformer:
    return _llama(
        config, norm="layer_norm", gated=False, parallel=1, qkv_bias=True, out_bias=True, mlp_bias=True, head_bias=True,
        activation=config.activation("hidden_act", default="gelu"),
        rotary=max(1, int(_head_dim(config, *_shape(config)[1::2]) * config.share("partial_rotary_factor", default=0.5))),
    )  # fmt: skip


def _phi3(config: Config) -> Transformer:
    return _mistral(config, fused_qkv=True, fused_gate=True)


def _gpt2(config: Config) -> Transformer:
    vocabulary, width, layers, heads = _shape(config)
    _head_dim(config, width, heads)
    more = dict(kv_heads=1) if config.flag("multi_query", default=False) else {}
    return gpt(
        width, heads, layers, vocabulary=vocabulary, positions=config.size("n_positions", "max_position_embeddings"),
        hidden=config.size("n_inner", "intermediate_size", default=4 * width), tied=config.flag("tie_word_embeddings", default=True),
        activation=config.activation("activation_function", default="gelu"), **more,
    )  # fmt: skip


def _gptj(config: Config) -> Transformer:
    vocabulary, width, layers, heads = _shape(config)
    size = _head_dim(config, width, heads)
    return gpt(
        width, heads, layers, vocabulary=vocabulary, positions=0, parallel=1, rotary=config.size("rotary_dim", default=size, most=size),
        hidden=config.size("n_inner", default=4 * width), activation=config.activation("activation_function", default="gelu"),
        fused_qkv=False, qkv_bias=False, out_bias=False, head_bias=True, tied=config.flag("tie_word_embeddings", default=False),
    )  # fmt: skip


def _neox(config: Config) -> Transformer:
    vocabulary, width, layers, heads = _shape(config)
    size, bias = _head_dim(config, width, heads), config.flag("attention_bias", default=True)
    return gpt(
        width, heads, layers, vocabulary=vocabulary, positions=0, hidden=config.size("intermediate_size"),
        parallel=2 * config.flag("use_parallel_residual", default=True), qkv_bias=bias, out_bias=bias,
        rotary=max(1, int(size * config.share("rotary_pct", "partial_rotary_factor", default=0.25))),
        activation=config.activation("hidden_act", default="gelu"), tied=config.flag("tie_word_embeddings", default=False),
    )  # fmt: skip


def _opt(config: Config) -> Transformer:
    vocabulary, width, layers, heads = _shape(config)
    _head_dim(config, width, heads)
    before, bias = config.flag("do_layer_norm_before", default=True), config.flag("enable_bias", default=True)
    table = config.size("word_embed_proj_dim", default=width)
    return opt(
        width, heads, layers, hidden=config.size("ffn_dim"), vocabulary=vocabulary, positions=config.size("max_position_embeddings"),
        activation=config.activation("activation_function", default="relu"), order="pre" if before else "post",
        final_norm=before and not config.flag("_remove_final_layer_norm", default=False),
        table_width=0 if table == width else table, qkv_bias=bias, out_bias=bias, mlp_bias=bias,
        tied=config.flag("tie_word_embeddings", default=True),
    )  # fmt: skip


def _bloom(config: Config) -> Transformer:
    vocabulary, width, layers, heads = _shape(config)
    _head_dim(config, width, heads)
    return bloom(width, heads, layers, vocabulary=vocabulary, tied=config.flag("tie_word_embeddings", default=True))


def _falcon(config: Config) -> Transformer:
    vocabulary, width, layers, heads = _shape(config)
    size, new = (
        _head_dim(config, width, heads),
        config.flag("new_decoder_architecture", default=config.has("n_head_kv")),
    )
    kv = 1 if config.flag("multi_query", default=True) else heads
    if new:
        kv = config.divisor("num_kv_heads", "n_head_kv", of=heads, what="num_attention_heads", default=heads)
    alibi, bias = config.flag("alibi", default=False), config.flag("bias", default=False)
    beside = new or config.flag("parallel_attn", default=True)
    norms = config.size("num_ln_in_parallel_attn", default=2, most=2) if new else 1
    return falcon(
        width, heads, layers, vocabulary=vocabulary, kv_heads=kv, hidden=config.size("ffn_hidden_size", default=4 * width),
        parallel=norms if beside else 0, alibi=alibi, rotary=0 if alibi else size, qkv_bias=bias, out_bias=bias, mlp_bias=bias,
        activation=config.activation("activation", default="gelu"), tied=config.flag("tie_word_embeddings", default=True),
    )  # fmt: skip


DECODERS: dict[str, Callable[[Config], Transformer]] = {
    "llama": _llama, "mistral": _mistral, "mixtral": _mixtral, "qwen2": _qwen2, "qwen3": _qwen3,
    "qwen2_moe": lambda config: _qwen2(config, **_qwen_experts(config, True)),
    "qwen3_moe": lambda config: _qwen3(config, **_qwen_experts(config, False)),
    "deepseek_v2": _deepseek, "deepseek_v3": _deepseek, "kimi_k2": _deepseek, "gemma": _gemma, "gemma2": _gemma2, "phi": _phi,
    "phi3": _phi3, "gpt2": _gpt2, "gpt_bigcode": _gpt2, "gptj": _gptj, "gpt_neox": _neox, "opt": _opt, "bloom": _bloom,
    "falcon": _falcon, "RefinedWeb": _falcon, "RefinedWebModel": _falcon,
}  # fmt: skip
