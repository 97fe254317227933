"""Hugging Face configurations."""

from ._importer import import_huggingface as import_huggingface
