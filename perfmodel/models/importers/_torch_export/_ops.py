"""Operators of PyTorch (aten and core aten) by what they are: rows, views, or nothing."""

from collections.abc import Callable
from math import ceil, log2, prod

from .._sketch_ops import constant, converted, look_up, update, vector, vector_dims
from .._sketch_value import Value, joined, keyed, scaled
from . import _matrix as matrix
from ._call import Call as Call

_ELEMENTWISE = (
    "abs neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal pow sin cos tan asin acos atan atan2 sinh cosh erf erfc "
    "erfinv sign sgn floor ceil round trunc frac div floor_divide true_divide remainder fmod maximum minimum fmax fmin clamp clamp_min "
    "clamp_max clip where masked_fill eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or "
    "bitwise_not bitwise_xor and or xor isnan isinf isfinite lerp addcmul addcdiv nan_to_num hardtanh hardswish hardsigmoid "
    "leaky_relu elu selu celu mish softplus softsign threshold prelu log_sigmoid logit glu rad2deg deg2rad heaviside copysign hypot "
    "sinc softshrink hardshrink tril triu diff cumprod lshift rshift relu_backward native_dropout bernoulli angle polar complex"
).split()  # fmt: skip
_KINDS = {
    "add": "add", "sub": "add", "rsub": "add", "subtract": "add", "mul": "mul", "multiply": "mul", "relu": "relu", "relu6": "relu",
    "gelu": "gelu", "silu": "silu", "sigmoid": "sigmoid", "tanh": "tanh", "softmax": "softmax", "log_softmax": "softmax",
    "safe_softmax": "softmax", "layer_norm": "layer_norm", "native_layer_norm": "layer_norm", "rms_norm": "rms_norm",
    "fused_rms_norm": "rms_norm", "group_norm": "group_norm", "native_group_norm": "group_norm", "instance_norm": "group_norm",
    "cumsum": "scan", "logcumsumexp": "scan", "cummax": "scan", "cummin": "scan", "cumulative_trapezoid": "scan",
    "quantize_per_tensor": "quantize", "quantize_per_channel": "quantize", "fake_quantize_per_tensor_affine": "quantize",
    "constant_pad_nd": "copy", "pad": "copy", "reflection_pad2d": "copy", "reflection_pad1d": "copy", "replication_pad2d": "copy",
    "roll": "copy", "flip": "copy", "pixel_shuffle": "copy", "pixel_unshuffle": "copy", "im2col": "copy", "col2im": "copy",
    "channel_shuffle": "copy", "unfold": "copy", "nonzero": "copy", "masked_select": "copy", "bincount": "copy", "one_hot": "copy",
    "grid_sampler": "gather", "grid_sampler_2d": "gather",
    **dict.fromkeys(_ELEMENTWISE, "elementwise"),
}  # fmt: skip
_REDUCTIONS = (
    "mean sum amax amin max min argmax argmin prod any all var std var_mean std_mean norm linalg_vector_norm logsumexp median "
    "count_nonzero nansum aminmax nll_loss nll_loss_forward cross_entropy_loss mse_loss"
).split()
_VIEWS = (
    "view unsafe_view reshape permute transpose t numpy_T swapaxes swapdims movedim moveaxis expand expand_as unsqueeze squeeze flatten "
    "unflatten contiguous clone alias detach lift_fresh_copy lift_fresh dropout alpha_dropout feature_dropout view_as reshape_as "
    "repeat tile broadcast_to repeat_interleave view_as_complex view_as_real real imag conj ravel identity "
    "reshape_alias expand_copy view_copy permute_copy transpose_copy squeeze_copy unsqueeze_copy detach_copy adjoint mT atleast_1d "
    "resolve_conj resolve_neg pin_memory conj_physical"
).split()  # fmt: skip
_CONVERSIONS = "to to_copy type_as float half bfloat16 dequantize_per_tensor dequantize_per_channel dequantize dequantize_self".split()
_SLICES = "slice select narrow diagonal slice_copy select_copy as_strided index_select_view unfold_copy".split()
_SPLITS = "split split_with_sizes chunk unbind tensor_split unsafe_split unsafe_chunk hsplit vsplit unbind_copy split_copy".split()
_NOTHING = (
    "arange zeros ones full empty zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty scalar_tensor eye "
    "linspace logspace rand randn randint rand_like randn_like randperm normal tril_indices triu_indices tensor sym_size sym_numel "
    "assert_scalar assert_async assert_tensor_metadata sym_constrain_range_for_size item local_scalar_dense new_empty_strided "
    "empty_strided fill hann_window randint_like"
).split()
_NORMS = (
    "batch_norm native_batch_norm native_batch_norm_legit native_batch_norm_legit_no_training cudnn_batch_norm batch_norm_with_update"
).split()
_POOLS = "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d".split()
_ADAPTIVE = (
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool1d".split()
)
_RESIZES = (
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d upsample_linear1d "
    "upsample_trilinear3d interpolate upsample_bilinear2d_aa upsample_nearest_exact2d"
).split()
_FOURIER = (
    "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_r2c fft_c2c fft_c2r stft"
).split()


def _plain(call: Call) -> list[Value]:
    """Work on the lanes that follows the result (and makes nothing else that matters)."""
    reads, out = call.values(), call.outs[0]
    made = vector(call.sketch, call.label, _KINDS[call.name], reads, out, dims=_dims(call, reads, out))
    return [made, *(constant(other) for other in call.outs[1:])]


def _dims(call: Call, reads: list[Value], out: Value) -> dict[str, int] | None:
    """Pictures keep their axes: (batch, channels, height, width)."""
    if len(out.shape) != 4 or out.elements == 0:
        return None
    rows = [call.sketch.rows[row] for value in reads for row in value.rows]
    if call.name in _NORMS or any(row.kind == "conv" or row.dims.get("q", 1) > 1 for row in rows):
        n, k, p, q = out.shape
        return dict(batch=n, k=k, p=p, q=q)
    return None


def _batch_norm(call: Call) -> list[Value]:
    """Scale and shift; the running statistics are folded in when it is loaded."""
    reads = [value for value in (call.maybe("input", "self"), call.maybe("weight"), call.maybe("bias")) if value]
    made = vector(call.sketch, call.label, "batch_norm", reads, call.outs[0], dims=_dims(call, reads, call.outs[0]))
    return [made, *(constant(out) for out in call.outs[1:])]


def _reduce(call: Call) -> list[Value]:
    reads = call.values()
    if call.name in ("max", "min") and len(reads) == 2:  # of two arrays, element by element
        return [vector(call.sketch, call.label, "elementwise", reads, call.outs[0])]
    if reads and reads[0].elements == call.outs[0].elements and call.name in ("mean", "sum", "amax", "amin"):
        return _view(call)
    whole = (
        call.outs[0]._replace(shape=(sum(out.elements for out in call.outs),)) if len(call.outs) > 1 else call.outs[0]
    )
    return call.fan(vector(call.sketch, call.label, "reduce", reads, whole))


def _view(call: Call) -> list[Value]:
    value = call.values()[0]
    parts = value.parts
    if call.outs[0].elements == 0:
        parts = ()
    return [call.outs[0]._replace(parts=parts)]


def _convert(call: Call) -> list[Value]:
    return [converted(call.sketch, call.values()[0], call.outs[0], False)]


def _slice(call: Call) -> list[Value]:
    value, out = call.value("self", "input"), call.outs[0]
    place = tuple(call.number(name, -1) for name in ("dim", "start", "index", "end", "step", "length"))
    return [_part(value, out, (call.name, place, out.shape))]


def _split(call: Call) -> list[Value]:
    value = call.value("self", "input")
    return [_part(value, out, ("split", i, out.shape)) for i, out in enumerate(call.outs)]


def _part(value: Value, out: Value, key: tuple) -> Value:
    if out.elements == value.elements:
        return out._replace(parts=value.parts)
    return out._replace(parts=keyed(scaled(value.parts, out.elements, value.elements), key) if out.elements else ())


def _concatenate(call: Call) -> list[Value]:
    return [call.outs[0]._replace(parts=joined([value for value in call.values("tensors") if value.elements]))]


def _embedding(call: Call) -> list[Value]:
    return [look_up(call.sketch, call.label, call.value("weight"), call.value("indices"), call.outs[0])]


def _bag(call: Call) -> list[Value]:
    table, indices, out = call.value("weight"), call.value("indices"), call.outs[0]
    looked = look_up(call.sketch, call.label, table, indices, out._replace(shape=(indices.elements, table.shape[-1])))
    made = vector(call.sketch, f"{call.label}.sum", "reduce", [looked], out)
    return [made, *(constant(other) for other in call.outs[1:])]


def _gather(call: Call) -> list[Value]:
    table, out = call.value("self", "input"), call.outs[0]
    others = call.values("index", "indices")
    indices = max(others, key=lambda value: value.elements) if others else table._replace(parts=())
    return [look_up(call.sketch, call.label, table, indices, out)]


def _update(call: Call) -> list[Value]:
    x = call.value("self", "input")
    change = call.maybe("values", "src", "source", "value") or call.outs[0]._replace(shape=(), parts=())
    others = call.values("index", "indices")
    kind = "add" if call.name.endswith("add") or call.name == "scatter_reduce" else "copy"
    return [update(call.sketch, call.label, x, change, call.outs[0], kind=kind, others=others)]


def _pool(call: Call) -> list[Value]:
    x, out = call.value("self", "input"), call.outs[0]
    window = [max(1, n) for n in call.numbers("kernel_size", default=[1])]
    axes = int(call.name[call.name.index("pool") + 4])
    window = tuple(window * axes)[:axes]
    stride = max([1, *call.numbers("stride", default=window)])
    return [_pooled(call, x, out, window, stride), *(constant(other) for other in call.outs[1:])]


def _adaptive(call: Call) -> list[Value]:
    x, out = call.value("self", "input"), call.outs[0]
    axes = int(call.name[-2])
    window = tuple(-(-a // max(1, b)) for a, b in zip(x.shape[-axes:], out.shape[-axes:], strict=True))
    return [_pooled(call, x, out, window, max(1, *window)), *(constant(other) for other in call.outs[1:])]


def _pooled(call: Call, x: Value, out: Value, window: tuple[int, ...], stride: int) -> Value:
    dims = vector_dims(call.sketch, [], out)
    if len(out.shape) == 4 and out.elements:
        n, k, p, q = out.shape
        dims = dict(batch=n, k=k, p=p, q=q)
    r, s = (prod(window[:-1]), window[-1]) if len(window) > 1 else (prod(window), 1)
    kind = "max_pool" if "max" in call.name else "avg_pool"
    return vector(
        call.sketch, call.label, kind, [x], out, dims={**dims, "r": r, "s": s, "stride": min(stride, 2**31 - 1)}
    )


def _resize(call: Call) -> list[Value]:
    reads = call.values()[:1]
    return [vector(call.sketch, call.label, "resize", reads, call.outs[0], dims=_dims(call, reads, call.outs[0]))]


def _sort(call: Call) -> list[Value]:
    """A sort compares each element log2(n) times, the k largest of n are kept in a heap: log2(k) times."""
    x = call.value("self", "input")
    of = call.number("k") or x.shape[call.number("dim", -1)] if x.shape else 1
    ops = x.elements * max(1, ceil(log2(max(of, 2))))
    whole = call.outs[0]._replace(shape=(sum(out.elements for out in call.outs),))
    return call.fan(vector(call.sketch, call.label, "top_k", [x], whole, lane_ops=ops))


def _fourier(call: Call) -> list[Value]:
    """Cooley-Tukey: 5 n log2(n) real operations a transform, half of that where one side is real."""
    x, out = call.values()[0], call.outs[0]
    axes = 2 if call.name.endswith("2") else 1
    points = max(x.elements, out.elements) * max(1.0, log2(max(2, prod(x.shape[-axes:]))))
    ops = round((5 if x.kind == out.kind == "complex" else 2.5) * points)
    return [vector(call.sketch, call.label, "fft", [x], out, lane_ops=ops)]


def _nothing(call: Call) -> list[Value]:
    return [constant(out) for out in call.outs]


HANDLERS: dict[str, Callable[[Call], list[Value]]] = {
    **dict.fromkeys(_KINDS, _plain), **dict.fromkeys(_NORMS, _batch_norm), **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(_VIEWS, _view), **dict.fromkeys(_CONVERSIONS, _convert), **dict.fromkeys(_SLICES, _slice),
    **dict.fromkeys(_SPLITS, _split), **dict.fromkeys(_NOTHING, _nothing), **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_ADAPTIVE, _adaptive), **dict.fromkeys(_RESIZES, _resize), **dict.fromkeys(_FOURIER, _fourier),
    **dict.fromkeys(("cat", "stack", "concat", "concatenate", "hstack", "vstack"), _concatenate),
    **dict.fromkeys(("gather", "index", "index_select", "take", "take_along_dim", "unsafe_index"), _gather),
    **dict.fromkeys(("index_put", "scatter", "scatter_add", "scatter_reduce", "slice_scatter", "select_scatter", "copy", "index_add",
                     "index_copy", "masked_scatter", "unsafe_index_put", "index_fill"), _update),
    **dict.fromkeys(("sort", "argsort", "topk", "kthvalue", "unique2"), _sort),
    **dict.fromkeys(("mm", "bmm", "matmul", "mv", "dot", "inner", "vdot"), matrix.matmul),
    **dict.fromkeys(("addmm", "baddbmm"), matrix.addmm),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
                     "cudnn_convolution"), matrix.conv),
    **dict.fromkeys(("scaled_dot_product_attention", "scaled_dot_product_flash_attention", "scaled_dot_product_efficient_attention",
                     "scaled_dot_product_cudnn_attention", "scaled_dot_product_flash_attention_for_cpu"), matrix.attention),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), matrix.recurrent),
    "linear": matrix.linear, "outer": matrix.outer, "ger": matrix.outer, "einsum": matrix.einsum, "embedding": _embedding,
    "embedding_bag": _bag, "unknown": Call.unknown,
}  # fmt: skip
