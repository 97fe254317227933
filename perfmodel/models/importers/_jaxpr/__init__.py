"""JAX functions, through their jaxpr."""

from ._importer import import_jax as import_jax
