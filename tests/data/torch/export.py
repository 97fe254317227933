"""How the `.pt2` files beside this were made: `python export.py`, with torch 2.15.0, transformers 5.23.0 and no network.

Models have random weights, which are then removed: what stays of an archive is the program and the list of weights.
"""

import json
import sys
import zipfile
from pathlib import Path

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
)  # fmt: skip

HERE = Path(__file__).parent


class Only(nn.Module):
    """A model that takes tokens and returns one tensor."""

    def __init__(self, model, output, **options):
        super().__init__()
        self.model, self.output, self.options = model, output, options

    def forward(self, tokens):
        return getattr(self.model(tokens, **self.options), self.output)


class Layers(nn.Module):
    """One of many kinds of layers, with sizes that tell which is which."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, (3, 5), stride=2, padding=1)
        self.grouped = nn.Conv2d(12, 24, 3, groups=4, dilation=2, bias=False)
        self.up = nn.ConvTranspose2d(24, 8, 4, stride=2)
        self.line = nn.Conv1d(8, 5, 3)
        self.volume = nn.Conv3d(2, 4, (2, 3, 3))
        self.norm = nn.BatchNorm2d(12)
        self.groups = nn.GroupNorm(3, 24)
        self.lstm = nn.LSTM(16, 32, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(64, 24, batch_first=True)
        self.bag = nn.EmbeddingBag(100, 16, mode="sum")
        self.table = nn.Embedding(50, 16)
        self.bilinear = nn.Parameter(torch.zeros(24, 24))
        self.register_buffer("quantised", torch.zeros(24, 40, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(40))

    def forward(self, image, video, tokens, flag):
        x = torch.relu(self.norm(self.stem(image)))
        x = self.groups(self.grouped(x))
        x = self.up(x)
        line = self.line(x.flatten(2))
        y, _ = self.lstm(self.table(tokens))
        y, _ = self.gru(y)
        y = y + torch.einsum("bld,de,bme->bl", y, self.bilinear, y)[..., None]
        q = y.reshape(y.shape[0], -1, 6, 4).transpose(1, 2)
        kv = q[:, ::3]
        z = nn.functional.scaled_dot_product_attention(q, kv, kv, enable_gqa=True)
        z = z.transpose(1, 2).reshape(y.shape) @ self.quantised.to(torch.float32) * self.scale
        z.add_(1.0)
        z = torch.cond(
            flag,
            lambda z: z @ z.transpose(1, 2),
            lambda z: z.sum(-1, keepdim=True).expand(-1, -1, z.shape[1]) + 1,
            (z,),
        )
        pooled = nn.functional.max_pool2d(x, 3, stride=2).mean((2, 3)), nn.functional.adaptive_avg_pool2d(x, 1)
        return line, self.volume(video), z, pooled, self.bag(tokens), torch.topk(line, 3)[0], x.argmax(1)


def export(name, model, arguments, sizes=None, core=False):
    program = torch.export.export(model.eval(), arguments, dynamic_shapes=sizes, strict=False)
    program = program.run_decompositions() if core else program
    torch.export.save(program, HERE / f"{name}.pt2")
    strip(HERE / f"{name}.pt2")


def strip(path):
    """Keep the program without the lines of source it came from, the list of weights, and the versions."""
    with zipfile.ZipFile(path) as archive:
        kept = {
            n: archive.read(n)
            for n in archive.namelist()
            if n.endswith((".json", "archive_format", "archive_version", "byteorder"))
        }
    program = next(n for n in kept if n.endswith("models/model.json"))
    content = json.loads(kept[program])
    drop_traces(content)
    kept[program] = json.dumps(content, separators=(",", ":")).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in kept.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 9)


def drop_traces(part):
    if isinstance(part, dict):
        part.pop("stack_trace", None)
        part.pop("guards_code", None)
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        drop_traces(inner)


def main():
    torch.manual_seed(0)
    batch, length = torch.export.Dim("batch", max=1024), torch.export.Dim("length", max=1024)
    tokens = torch.zeros(2, 64, dtype=torch.long)
    resnet = ResNetForImageClassification(ResNetConfig(num_labels=1000))
    export("resnet50", resnet, (torch.zeros(2, 3, 224, 224),), {"pixel_values": {0: batch}})
    gpt2 = Only(GPT2LMHeadModel(GPT2Config()), "logits", use_cache=False)
    export("gpt2", gpt2, (tokens,), {"tokens": {0: batch, 1: length}})
    bert = BertModel(BertConfig())
    export("bert", Only(bert, "pooler_output"), (tokens,))
    export("bert-core", Only(BertModel(BertConfig(num_hidden_layers=2)), "pooler_output"), (tokens,), core=True)
    llama = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2
    )  # fmt: skip
    export(
        "llama", Only(LlamaForCausalLM(llama), "logits", use_cache=False), (tokens,), {"tokens": {0: batch, 1: length}}
    )
    arguments = (
        torch.zeros(2, 3, 32, 32),
        torch.zeros(2, 2, 6, 9, 9),
        torch.zeros(2, 7, dtype=torch.long),
        torch.tensor(True),
    )
    export("layers", Layers(), arguments)
    print(torch.__version__, file=sys.stderr)


if __name__ == "__main__":
    main()
