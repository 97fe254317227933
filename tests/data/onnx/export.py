"""Write the ONNX files of this folder: models of the transformers library as torch.onnx exports them, without their weights.

    python export.py [NAME...]          # all if none is named
    python export.py --strip FILE...    # files of others, stripped of their weights, into this folder

Needs torch, transformers, onnx and onnxscript (the files here: torch 2.15.0, transformers 5.23.0, onnx 1.23.2, onnxscript
0.7.2); the tests need none of them. Weights are random, of a published configuration; nothing is downloaded. Initialisers of
more than 64 elements become references to a file `weights` that is not there: names, types and shapes remain. Llama is
exported on the meta device, so that its 6.7 billion parameters never exist.
"""

import sys
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
import transformers
from onnx import TensorProto

HERE = Path(__file__).parent
KEPT = 64  # elements of an initialiser that stays in the file


def resnet():
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000))
    return model, {"pixel_values": torch.zeros(1, 3, 224, 224)}


def swin():
    model = transformers.SwinForImageClassification(transformers.SwinConfig(num_labels=1000))
    return model, {"pixel_values": torch.zeros(1, 3, 224, 224)}


def bert():
    model = transformers.BertModel(transformers.BertConfig())
    tokens = torch.zeros(1, 512, dtype=torch.int64)
    return model, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def gpt2(batch=1, tokens=1024):
    model = transformers.GPT2Model(transformers.GPT2Config(use_cache=False))
    return model, {"input_ids": torch.zeros(batch, tokens, dtype=torch.int64)}


def gpt2_dynamic():
    return gpt2(2, 64)  # a dimension of 1 would be taken for fixed


def llama():
    config = transformers.LlamaConfig(  # Llama-2-7B as published
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000,
        max_position_embeddings=4096, use_cache=False, dtype="float16",
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).half()
        return model, {"input_ids": torch.zeros(1, 512, dtype=torch.int64)}


DYNAMIC = {"input_ids": {0: "batch", 1: "sequence"}}
FILES = {  # model and example; exporter: TorchScript, dynamo, or dynamo with its optimiser; dynamic axes
    "resnet50": (resnet, "dynamo", None),
    "resnet50-optimized": (resnet, "optimized", None),  # batch norms are folded into the convolutions
    "resnet50-torchscript": (resnet, "torchscript", {"pixel_values": {0: "batch"}}),
    "swin-t": (swin, "dynamo", None),
    "bert-base": (bert, "dynamo", None),
    "bert-base-torchscript": (bert, "torchscript", DYNAMIC | {"attention_mask": DYNAMIC["input_ids"]}),
    "gpt2": (gpt2, "dynamo", None),
    "gpt2-dynamic": (gpt2_dynamic, "dynamo", DYNAMIC),
    "llama-2-7b": (llama, "dynamo", None),
}


class Outputs(torch.nn.Module):
    """Keyword arguments in, all tensors out."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors):
        return self.model(**dict(zip(self.names, tensors, strict=True)), return_dict=True).to_tuple()


def export(name: str) -> Path:
    build, exporter, dynamic = FILES[name]
    torch.manual_seed(0)
    model, example = build()
    path = HERE / f"{name}.onnx"
    wrapped, arguments = Outputs(model, list(example)).eval(), tuple(example.values())
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
            tensor.uniform_(0.5, 1.0)  # no two alike: the exporters store equal tensors once
        if exporter == "torchscript":
            torch.onnx.export(
                wrapped, arguments, str(path), dynamo=False, dynamic_axes=dynamic, input_names=list(example), opset_version=17,
                do_constant_folding=False,
            )  # fmt: skip
            proto = onnx.load(path)
        else:
            axes = {k: torch.export.Dim(k) for k in ("batch", "sequence")}
            shapes = (tuple({a: axes[n] for a, n in dynamic[i].items()} for i in example),) if dynamic else None
            program = torch.onnx.export(
                wrapped, arguments, dynamo=True, dynamic_shapes=shapes, input_names=list(example),
                optimize=exporter == "optimized",
            )  # fmt: skip
            proto = stripped_program(program)
    strip(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def stripped_program(program) -> onnx.ModelProto:
    for value in program.model.graph.initializers.values():
        tensor = value.const_value
        if tensor.size > KEPT or getattr(tensor.raw, "is_meta", False):
            value.const_value = ir.ExternalTensor(
                "weights", None, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=value.name
            )
    return ir.to_proto(program.model)


def strip(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take out the elements of large tensors and everything that only describes where a node came from."""
    del proto.metadata_props[:]
    _strip_graph(proto.graph)
    return proto


def _strip_graph(graph: onnx.GraphProto) -> None:
    del graph.metadata_props[:]
    for tensor in graph.initializer:
        _strip_tensor(tensor)
    for node in graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _strip_tensor(attribute.t)
            if attribute.HasField("g"):
                _strip_graph(attribute.g)
    for value in [*graph.value_info, *graph.input, *graph.output]:
        del value.metadata_props[:]


def _strip_tensor(tensor: TensorProto) -> None:
    tensor.ClearField("doc_string")
    if prod(tensor.dims) > KEPT:
        kept = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        kept.data_location = TensorProto.EXTERNAL
        kept.external_data.add(key="location", value="weights")
        tensor.CopyFrom(kept)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--strip"]:
        for source in map(Path, sys.argv[2:]):
            (HERE / source.name).write_bytes(strip(onnx.load(source)).SerializeToString())
        sys.exit()
    for name in sys.argv[1:] or FILES:
        written = export(name)
        print(f"{written.name}: {written.stat().st_size} bytes")
