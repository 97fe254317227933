"""Seconds of collectives between the GPUs of one node: custom all-reduce kernels and NCCL."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._names import unknown_name
from ...hardware import Gpu
from ._parts import Positive

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


class CollectiveParameters(eqx.Module):
    """Constants of one library's collectives, all positive; times in seconds.

    - `launch_s` and `hop_s` (each further rank): the low-latency protocol, which moves `1 / low_efficiency` bytes a byte.
    - `bulk_s`, `bulk_hop_s`, `bulk_efficiency`: the protocol for large messages.
    - `copy_passes`: bytes that DRAM moves for each byte of the message besides the links (copies and sums).
    - `switch_efficiency`: links' efficiency when the switch adds up.
    - `host_share`: where links go through the host and there are more than two ranks: of one link's bytes/s, what all ranks
      share.
    """

    launch_s: Positive = 8e-6
    hop_s: Positive = 1e-6
    low_efficiency: Positive = 0.4
    bulk_s: Positive = 25e-6
    bulk_hop_s: Positive = 2e-6
    bulk_efficiency: Positive = 0.9
    copy_passes: Positive = 2.5
    switch_efficiency: Positive = 0.8
    host_share: Positive = 0.6


def collective_s(
    parameters: CollectiveParameters,
    gpu: Gpu,
    message_bytes,
    ranks,
    *,
    kind: str = "all_reduce",
    low_latency_limit_bytes=jnp.inf,
) -> Float[Array, ""]:
    """Seconds of a collective of `message_bytes` (the whole tensor) between `ranks` GPUs of a node.

    Two protocols, the faster one taken. Low latency: one step, every rank writes its data to all others at once, or (all-reduce,
    if less) in two steps, scattered and gathered. Bulk: ring volumes 2(n-1)/n (all-reduce) or (n-1)/n of the message through
    each link, plus local copies through DRAM; all-reduce in the switch sends (n+1)/n.
    `low_latency_limit_bytes`: largest message for which the library uses its low-latency kernel (vLLM's custom all-reduce: 8 MiB).

    Raises ValueError for an unknown kind.
    """
    if kind not in COLLECTIVES:
        raise unknown_name("collective", kind, COLLECTIVES)
    others = ranks - 1
    shared = parameters.host_share * gpu.link_bytes_per_s / ranks
    link: Any = jnp.where((gpu.host_link > 0) & (ranks > 2), shared, gpu.link_bytes_per_s)
    ring = others / ranks
    low_link = parameters.low_efficiency * link
    if kind == "all_reduce":
        once = others * message_bytes / low_link
        twice = 2 * ring * message_bytes / low_link + parameters.hop_s
        low_s = jnp.minimum(once, twice)
        ring_s = 2 * ring * message_bytes / (parameters.bulk_efficiency * link)
        in_switch = (ranks + 1) / ranks * message_bytes / (parameters.switch_efficiency * link)
        bulk_s = jnp.where((gpu.switch_reduces > 0) & (ranks > 2), jnp.minimum(ring_s, in_switch), ring_s)
        steps = 2 * others
    else:
        low_s = ring * message_bytes / low_link
        bulk_s = ring * message_bytes / (parameters.bulk_efficiency * link)
        steps = others
    low = parameters.launch_s + parameters.hop_s * others + low_s
    copies_s = parameters.copy_passes * message_bytes / gpu.dram_bytes_per_s
    bulk = parameters.bulk_s + parameters.bulk_hop_s * steps + bulk_s + copies_s
    limited = jnp.isfinite(low_latency_limit_bytes)
    own: Any = jnp.where(message_bytes < low_latency_limit_bytes, low, bulk)
    best: Any = jnp.where(limited, own, jnp.minimum(low, bulk))
    return best


# Kernels, (family, variant), of a collective; the one-shot all-reduce is another way to do that one.
NCCL = {"all_reduce": "nccl_all_reduce", "all_gather": "nccl_all_gather", "reduce_scatter": "nccl_reduce_scatter",
        "all_to_all": "nccl_alltoall"}  # fmt: skip
KERNELS = (("custom_all_reduce", ""), *(("nccl", variant) for variant in NCCL.values()))


def measured_s(
    kernels: dict[tuple[str, str], Any], gpu: Gpu, kind: str, message_bytes, ranks, *, low_latency: bool = True
):
    """Seconds of a collective within a package of GPUs by fitted `kernels`, (family, variant) -> constants: NCCL, and for an all-reduce
    the libraries' one-shot kernel if that is faster and `low_latency`."""
    seconds = collective_s(kernels["nccl", NCCL[kind]], gpu, message_bytes, ranks, kind=kind)
    if kind == "all_reduce" and low_latency:
        custom = collective_s(kernels["custom_all_reduce", ""], gpu, message_bytes, ranks)
        seconds = jnp.minimum(seconds, custom)
    return seconds
