"""Composition of experts: many models in tiers of memory, switched in and out."""

from .._lazy import listed
from ._cache import POLICIES as POLICIES
from ._cache import batch_latency_s as batch_latency_s
from ._cache import cache_hits as cache_hits
from ._cache import load_trace as load_trace
from ._cache import steady_hit_rate as steady_hit_rate
from ._cache import zipf_trace as zipf_trace
from ._cache_rates import lru_hit_rate as lru_hit_rate
from ._cache_rates import static_hit_rate as static_hit_rate
from ._cache_rates import turns_hit_rate as turns_hit_rate
from ._cache_rates import zipf as zipf
from ._footprint import RESIDENCIES as RESIDENCIES
from ._footprint import Footprint as Footprint
from ._footprint import copy_s as copy_s
from ._footprint import default_residency as default_residency
from ._footprint import footprint as footprint
from ._footprint import hit_rate as hit_rate
from ._footprint import request_s as request_s
from ._footprint import running_tier as running_tier
from ._service import ExpertService as ExpertService
from ._times import ModelTimes as ModelTimes
from ._times import model_times as model_times

# loaded when it is asked for
LISTS = {"_fit": ("Node", "fit_host", "fit_reference", "modelled_ratios", "published_rows")}


def __getattr__(name: str):
    return listed(__name__, LISTS, name)
