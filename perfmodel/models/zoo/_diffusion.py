"""The denoising network of Stable Diffusion 1.x (Rombach et al., arXiv 2112.10752; released configuration v1-inference.yaml)."""

from ...workload._graph import Workload
from .._net import Net, Tensor
from ._parts import attention, multiple_of

_WIDTHS, _RESIDUALS, _HEADS, _TEXT = (320, 640, 1280, 1280), 2, 8, 768
_LATENT, _REDUCTION = 4, 8  # channels of the latent; pixels of the picture per pixel of the latent


def stable_diffusion_unet(name: str, *, batch: int = 1, image: int = 512, text_len: int = 77, dtype: str = "int8",
                          weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """One denoising step as a complete graph: residual blocks with the time embedding, transformers with cross-attention.

    `image`: side of the picture; the latent has an eighth of it and 4 channels. `text_len`: tokens of the text encoder, which is
    not in the graph, nor is the decoder. Guidance with and without the prompt is `batch=2` a picture.
    Raises ValueError where `image` is no multiple of 64 (the latent is halved three times).
    """
    side = multiple_of(name, "image", image, 64) // _REDUCTION
    net = Net(name, batch, dtype, weight_dtype)
    text = net.input(batch, text_len, _TEXT)
    time = net.vector("time.sinusoid", "elementwise", net.input(batch, 1), shape=(batch, _WIDTHS[0]))
    for i in (1, 2):  # the second activation is that of the residual blocks, the same for all
        time = net.vector(f"time.silu{i}", "silu", net.linear(f"time.linear{i}", time, 1280, bias=True))
    x = net.conv("conv_in", net.input(batch, _LATENT, side, side), _WIDTHS[0], 3, bias=True)
    skips = [x]
    for level, width in enumerate(_WIDTHS):
        for i in range(_RESIDUALS):
            x = _residual(net, f"down{level}.res{i}", x, time, width)
            if level < 3:
                x = _transformer(net, f"down{level}.attn{i}", x, text)
            skips.append(x)
        if level < 3:
            x = net.conv(f"down{level}.down", x, width, 3, 2, padding=1, bias=True)
            skips.append(x)
    x = _transformer(net, "middle.attn", _residual(net, "middle.res0", x, time, x.shape[1]), text)
    x = _residual(net, "middle.res1", x, time, x.shape[1])
    for level, width in reversed(list(enumerate(_WIDTHS))):
        for i in range(_RESIDUALS + 1):
            x = _residual(net, f"up{level}.res{i}", net.concat(x, skips.pop()), time, width)
            if level < 3:
                x = _transformer(net, f"up{level}.attn{i}", x, text)
        if level:
            n, c, height, wide = x.shape
            x = net.vector(f"up{level}.resize", "resize", x, shape=(n, c, 2 * height, 2 * wide))
            x = net.conv(f"up{level}.up", x, width, 3, bias=True)
    net.conv("conv_out", _norm_silu(net, "out", x), _LATENT, 3, bias=True)
    return net.build()


def _norm_silu(net: Net, label: str, x: Tensor) -> Tensor:
    return net.vector(f"{label}.silu", "silu", net.norm(f"{label}.norm", "group_norm", x))


def _residual(net: Net, label: str, x: Tensor, time: Tensor, width: int) -> Tensor:
    out = net.conv(f"{label}.conv1", _norm_silu(net, f"{label}.in", x), width, 3, bias=True)
    out = net.vector(f"{label}.add_time", "add", out, net.linear(f"{label}.time", time, width, bias=True))
    out = net.conv(f"{label}.conv2", _norm_silu(net, f"{label}.mid", out), width, 3, bias=True)
    if x.shape[1] != width:
        x = net.conv(f"{label}.shortcut", x, width, 1, bias=True)
    return net.vector(f"{label}.add", "add", out, x)


def _transformer(net: Net, label: str, x: Tensor, text: Tensor) -> Tensor:
    """Self-attention, cross-attention to the text, gated MLP; over pixels, between two 1 x 1 convolutions."""
    entry, (n, width, height, wide) = x, x.shape
    x = net.conv(f"{label}.proj_in", net.norm(f"{label}.norm", "group_norm", x), width, 1, bias=True)
    x = x.reshaped(n, height * wide, width)
    for i in (1, 2):
        part = f"{label}.attn{i}"
        normed = net.norm(f"{part}.norm", "layer_norm", x)
        source = normed if i == 1 else text
        q, k, v = (
            net.linear(f"{part}.q", normed, width),
            net.linear(f"{part}.k", source, width),
            net.linear(f"{part}.v", source, width),
        )
        out = net.linear(f"{part}.out", attention(net, part, q, k, v, _HEADS), width, bias=True)
        x = net.vector(f"{part}.add", "add", out, x)
    both = net.linear(f"{label}.ff.in", net.norm(f"{label}.ff.norm", "layer_norm", x), 8 * width, bias=True)
    value, gate = net.split(both, 4 * width, 4 * width, axis=-1)
    hidden = net.vector(f"{label}.ff.mul", "mul", value, net.vector(f"{label}.ff.gelu", "gelu", gate))
    x = net.vector(f"{label}.ff.add", "add", net.linear(f"{label}.ff.out", hidden, width, bias=True), x)
    x = net.conv(f"{label}.proj_out", x.reshaped(n, width, height, wide), width, 1, bias=True)
    return net.vector(f"{label}.add", "add", x, entry)


BUILDERS = {"stable-diffusion-unet": stable_diffusion_unet}
