"""The U-Net of Stable Diffusion 1.5 against its checkpoint, published counts and a closed form."""

import perfmodel as pm
from perfmodel.workload import KINDS, exact_macs


def attention_products(w):
    return sum(
        m for m, k in zip(exact_macs(w.operators), w.operators.kind, strict=True) if KINDS[k] == "attention_gemm"
    )


def test_published_figures():
    """859,520,964 parameters (checkpoint; diffusers 0.42 prints it as 859.52 M). Published multiply-accumulates count layers only:
    338.7 G of one step (Kim et al., BK-SDM, arXiv 2305.15798: 339 G); diffusers' hooks give 338,610,585,600 for convolutions and
    dense layers and torch's FlopCounterMode 401,636,720,640 with the products of attention."""
    w = pm.models.load("stable-diffusion-unet")
    assert w.parameters == 859_520_964
    assert w.macs == 401_636_720_640
    assert w.macs - attention_products(w) == 338_610_585_600


def residual(side, into, out):
    return side * side * 9 * (into * out + out * out) + (side * side * into * out if into != out else 0) + 1280 * out


def transformer(side, c, text=77):
    n = side * side
    dense = 2 * n * c * c + 4 * n * c * c + 2 * n * c * c + 2 * text * 768 * c + n * c * 8 * c + n * 4 * c * c
    return dense + 2 * n * n * c + 2 * n * text * c


def closed_form(side):
    """From the configuration: widths 320, 640, 1280, 1280; two residual blocks down, three up; attention in all but the last level."""
    macs = 320 * 1280 + 1280 * 1280 + 2 * side * side * 9 * 4 * 320
    skips, c = [320], 320
    for level, width in enumerate((320, 640, 1280, 1280)):
        at = side >> level
        for _ in range(2):
            macs += residual(at, c, width) + (transformer(at, width) if level < 3 else 0)
            c = width
            skips.append(c)
        if level < 3:
            macs += (at // 2) ** 2 * 9 * c * c
            skips.append(c)
    macs += 2 * residual(side >> 3, 1280, 1280) + transformer(side >> 3, 1280)
    for level, width in ((3, 1280), (2, 1280), (1, 640), (0, 320)):
        at = side >> level
        for _ in range(3):
            macs += residual(at, c + skips.pop(), width) + (transformer(at, width) if level < 3 else 0)
            c = width
        if level:
            macs += (2 * at) ** 2 * 9 * c * c
    return macs


def test_closed_form():
    for image in (64, 512, 768):
        assert pm.models.load("stable-diffusion-unet", image=image).macs == closed_form(image // 8)


def test_twice_the_side_is_four_times_the_convolutions_and_sixteen_times_self_attention():
    small, large = (pm.models.load("stable-diffusion-unet", image=image) for image in (512, 1024))
    for kind, part, factor in (("conv", "conv1", 4), ("attention_gemm", "attn1", 16), ("attention_gemm", "attn2", 4)):
        rows = [
            i for i, k in enumerate(small.operators.kind) if KINDS[k] == kind and part in small.names[i].split(".")[-2:]
        ]
        one, two = exact_macs(small.operators), exact_macs(large.operators)
        assert rows and all(two[i] == factor * one[i] for i in rows)


def test_graph():
    w = pm.models.load("stable-diffusion-unet")
    kinds = [KINDS[k] for k in w.operators.kind]
    assert kinds.count("attention_gemm") == 2 * 2 * 16 and kinds.count("softmax") == 2 * 16
    assert kinds.count("group_norm") == 2 * 22 + 16 + 1
    # the first feature map is read by its block and, much later, by the last block of the way up
    readers = [w.names[i] for i in w.target[w.source == w.names.index("conv_in")]]
    assert {"down0.res0.in.norm", "up0.res2.in.norm", "up0.res2.shortcut"} <= set(readers)
    # the text is read from memory by keys and values of each cross-attention
    keys = [i for i, name in enumerate(w.names) if name.endswith("attn2.k")]
    assert [w.outside_in_bytes[i] for i in keys] == [77 * 768] * 16
