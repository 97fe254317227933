"""Configurations of encoders and of models that see, by `model_type`: BERT, ViT, CLIP, LLaVA, Swin, ResNet."""

from collections.abc import Callable, Mapping

from ....workload._graph import Workload
from ...zoo import _resnet, _swin
from ...zoo._bert import bert, encode
from ...zoo._clip import Tower, clip, seen
from ...zoo._llava import sighted
from ...zoo._passes import pass_of
from ...zoo._records import Transformer
from ...zoo._transformer import Language, embedded, finished, last_tokens, stack
from ._decoders import DECODERS
from ._fields import MOST_LAYERS, Config

# What classes of the library take for fields that a nested configuration leaves out.
_NESTED: dict[str, Mapping[str, object]] = {
    "llama": dict(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32),
    "mistral": dict(
        vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, sliding_window=4096,
    ),
    "clip_text_model": dict(
        vocab_size=49408, hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8,
        max_position_embeddings=77,
    ),
    "clip_vision_model": dict(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224, patch_size=32
    ),
}  # fmt: skip
_CLIP_336 = dict(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
)


def _encoder(config: Config, name: str, options: dict) -> Workload:
    """BERT and RoBERTa; RoBERTa's table has two positions more than are used."""
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if width % heads:
        raise ValueError(f"{config.where}: num_attention_heads is {heads}; allowed: a divisor of hidden_size, {width}")
    positions = config.size("max_position_embeddings", least=3)
    spec = bert(
        width, heads, config.size("num_hidden_layers", most=MOST_LAYERS), hidden=config.size("intermediate_size"),
        vocabulary=config.size("vocab_size", most=2**30), positions=positions, activation=config.activation("hidden_act"),
        limit=positions if config.text("model_type") == "bert" else positions - 2, types=config.size("type_vocab_size", default=2),
    )  # fmt: skip
    classes = config.names("architectures")
    head = "mlm" if classes and "MaskedLM" in classes[0] else "pooler"
    if options.pop("context") is not None:
        raise ValueError(f"{config.where}: context is given; an encoder of whole sequences has none")
    taken = {o: options[o] for o in ("batch", "phase", "seq_len", "dtype", "weight_dtype")}
    return encode(name, spec, head=head, **taken)


def _classes(config: Config) -> int:
    labels = config.data.get("id2label")
    return len(labels) if isinstance(labels, dict) and labels else config.size("num_labels", "_num_labels", default=2)


def _image(config: Config, options: dict, default: int = 224) -> int:
    image = options["image"] if options["image"] is not None else config.size("image_size", default=default, most=2**14)
    if isinstance(image, bool) or not isinstance(image, int) or not 1 <= image <= 2**14:
        raise ValueError(f"{config.where}: image is {image!r}; allowed: an integer from 1 to {2**14}")
    return image


def _tower(config: Config, image: int | None = None, used: int = 0) -> Tower:
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if width % heads:
        raise ValueError(f"{config.where}: num_attention_heads is {heads}; allowed: a divisor of hidden_size, {width}")
    image = image or config.size("image_size", default=224, most=2**14)
    return clip(
        width, heads, config.size("num_hidden_layers", most=MOST_LAYERS), config.size("intermediate_size"), image,
        config.size("patch_size", most=image), used,
    )  # fmt: skip


def _vit(config: Config, name: str, options: dict) -> Workload:
    """ViT and DeiT of the library: separate Q, K and V, the class token classified (or pooled in a bare model)."""
    image = _image(config, options)
    tower = _tower(config, image)
    bias, channels = config.flag("qkv_bias", default=True), config.size("num_channels", default=3, most=1024)
    spec = tower.spec._replace(
        qkv_bias=bias, activation=config.activation("hidden_act"), final_norm=True, block="layer"
    )
    run = pass_of(name, phase=_whole(config, options), batch=options["batch"], seq_len=tower.patches + 1, cached=False)
    net, tokens, patch = Language(name, run.batch, options["dtype"], options["weight_dtype"]), run.tokens, tower.patch
    x = net.conv(
        "patches", net.input(run.batch, channels, image, image), spec.width, patch, patch, padding="valid", bias=True
    )
    x = net.vector("embed", "add", x, shape=(run.batch, tokens, spec.width), parameters=(tokens + 1) * spec.width)
    x = stack(net, spec, x, run)
    first = net.split(x, 1, tokens - 1, axis=1)[0].reshaped(run.batch, spec.width)
    if any(name.endswith("Model") for name in config.names("architectures")):
        net.vector("pooler.tanh", "tanh", net.linear("pooler", first, spec.width, bias=True))
    else:
        net.linear("classifier", first, _classes(config), bias=True)
    return finished(net, run)


def _whole(config: Config, options: dict) -> str:
    if options["phase"] == "decode" or options["context"] is not None:
        raise ValueError(
            f"{config.where}: phase is decode, or context given; allowed: prefill, train (it sees a whole input)"
        )
    return options["phase"]


def _clip(config: Config, name: str, options: dict) -> Workload:
    """CLIP: as many texts as pictures (`batch`), both projected, every pair's similarity."""
    vision, text = (config.nested(f"{side}_config", _NESTED[f"clip_{side}_model"]) for side in ("vision", "text"))
    tower = _tower(vision, options["image"] and _image(vision, options))
    limit, heads = text.size("max_position_embeddings"), text.size("num_attention_heads")
    width = text.size("hidden_size")
    if width % heads:
        raise ValueError(f"{text.where}: num_attention_heads is {heads}; allowed: a divisor of hidden_size, {width}")
    spec = Transformer(
        text.size("vocab_size", most=2**30), width, text.size("num_hidden_layers", most=MOST_LAYERS), heads,
        text.size("intermediate_size"), norm="layer_norm", activation="gelu", gated=False, positions=limit, limit=limit,
        qkv_bias=True, out_bias=True, mlp_bias=True, block="text.layer",
    )  # fmt: skip
    run = pass_of(
        name,
        phase=_whole(config, options),
        batch=options["batch"],
        seq_len=options["seq_len"],
        cached=False,
        limit=limit,
    )
    net, dim = (
        Language(name, run.batch, options["dtype"], options["weight_dtype"]),
        config.size("projection_dim", default=512),
    )
    first, _ = seen(net, tower, run, run.batch)
    picture = net.linear("visual_projection", first.reshaped(run.batch, tower.spec.width), dim)
    words = last_tokens(net, stack(net, spec, embedded(net, spec, run), run)).reshaped(run.batch, width)
    words = net.linear("text_projection", words, dim)
    pairs = net.product("logits", picture, words, groups=1, p=run.batch, k=run.batch, c=dim)
    net.vector("logits.scale", "mul", pairs, parameters=1)
    return finished(net, run)


def _llava(config: Config, name: str, options: dict) -> Workload:
    """LLaVA: nested configurations (transformers), or Llama's fields at the top and the name of the tower (the authors')."""
    if config.has("vision_config"):
        kind = config.nested("vision_config").text("model_type", default="clip_vision_model")
        if kind != "clip_vision_model":
            raise ValueError(f"{config.where}: vision_config: model_type is {kind!r}; allowed: clip_vision_model")
        vision = config.nested("vision_config", _NESTED["clip_vision_model"])
        text = config.nested("text_config")
        text = config.nested("text_config", _NESTED.get(text.text("model_type", default="llama")))
    else:
        tower = "openai/clip-vit-large-patch14-336"
        config.choice("mm_vision_tower", allowed={tower: tower}, default=tower)
        vision, text = Config(config.where, {}, _CLIP_336), config
    layers = vision.size("num_hidden_layers", most=MOST_LAYERS)
    layer = config.size("vision_feature_layer", "mm_vision_select_layer", default=-2, least=-layers, most=layers)
    config.choice(
        "vision_feature_select_strategy", "mm_vision_select_feature", allowed={"default": "", "patch": ""}, default=""
    )
    kind = text.text("model_type", default="llama") if config.has("vision_config") else "llama"
    if kind not in DECODERS:
        raise ValueError(f"{text.where}: model_type is {kind!r}; allowed: {', '.join(sorted(DECODERS))}")
    options.pop("image")
    return sighted(
        name, _tower(vision, used=layers + 1 + layer if layer < 0 else layer), DECODERS[kind](text), **options
    )


def _resnet_of(config: Config, name: str, options: dict) -> Workload:
    """ResNet of one of the zoo's sizes."""
    basic = config.choice("layer_type", allowed={"basic": "basic", "bottleneck": ""}, default="") == "basic"
    depths = tuple(config.sizes("depths", most=4))
    widths = tuple(64 * 2**i * (1 if basic else 4) for i in range(4))
    given = tuple(config.sizes("hidden_sizes", most=4))
    known = {(d, n in _resnet._BASIC): n for n, d in _resnet._STAGES.items()}
    plain = config.size("embedding_size", default=64) == 64 and not config.flag(
        "downsample_in_bottleneck", default=False
    )
    if (depths, basic) not in known or given != widths or not plain:
        raise ValueError(
            f"{config.where}: depths are {depths}, hidden_sizes {given}; allowed: those of {', '.join(_resnet._STAGES)}"
        )
    return _zoo(_resnet.resnet, known[depths, basic], config, name, options)


def _swin_of(config: Config, name: str, options: dict) -> Workload:
    """Swin of one of the zoo's sizes."""
    first, depths, heads = config.size("embed_dim"), tuple(config.sizes("depths")), config.sizes("num_heads")
    known = {(width, tuple(each * 2**i for i in range(len(d))), d): n for n, (width, each, d) in _swin._SIZES.items()}
    usual = dict(window_size=7, patch_size=4, num_channels=3)
    plain = all(config.size(field, default=value) == value for field, value in usual.items())
    if (first, tuple(heads), depths) not in known or not plain or config.number("mlp_ratio", default=4) != 4:
        raise ValueError(
            f"{config.where}: embed_dim is {first}, depths are {depths}; allowed: those of {', '.join(_swin._SIZES)}, windows of 7"
        )
    return _zoo(_swin.swin, known[first, tuple(heads), depths], config, name, options)


def _zoo(build: Callable[..., Workload], known: str, config: Config, name: str, options: dict) -> Workload:
    """A model of the zoo under the name of the imported one."""
    if _whole(config, options) == "train":
        from ....workload._training import training_step

        return training_step(_zoo(build, known, config, name, options | {"phase": "prefill"}))
    taken = {o: options[o] for o in ("batch", "dtype", "weight_dtype")}
    workload = build(known, image=_image(config, options), classes=_classes(config), **taken)
    return workload if known == name else _renamed(workload, name)


def _renamed(workload: Workload, name: str) -> Workload:
    from dataclasses import replace

    return replace(workload, model_names=(name,))


OTHERS: dict[str, Callable[[Config, str, dict], Workload]] = {
    "bert": _encoder, "roberta": _encoder, "xlm-roberta": _encoder, "camembert": _encoder, "vit": _vit, "clip": _clip,
    "llava": _llava, "llava_llama": _llava, "resnet": _resnet_of, "swin": _swin_of,
}  # fmt: skip
