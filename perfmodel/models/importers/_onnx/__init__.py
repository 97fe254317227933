"""ONNX files."""

from ._importer import import_onnx as import_onnx
