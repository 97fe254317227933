"""The workload of one rank of many: cuts by tensor, tokens, experts, context and stages, collectives as operators."""

from ._ranks import Ranks as Ranks
from ._shard import replicated as replicated
from ._shard import shard as shard
from ._shard import stages as stages
