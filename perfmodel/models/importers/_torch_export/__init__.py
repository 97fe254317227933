"""PyTorch programs as `torch.export` saves them."""

from ._importer import import_torch as import_torch
