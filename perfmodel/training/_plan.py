"""What a training run asks for: sizes and degrees of parallelism, checked; and its step."""

from dataclasses import asdict, dataclass, replace

import equinox as eqx
import jax
import numpy as np

from .._names import unknown_name
from ..cost._device import Machine
from ..cost._device import machine as machine_of
from ..hardware import System
from ..models._decoders import decoder
from ..models.zoo._records import Transformer
from ._memory import RECOMPUTE, STATE_BYTES, training_memory
from ._shape import TrainingShape, training_shape
from ._step import FITTED, TrainingStep, training_step
from ._time import TrainingConstants


@dataclass(frozen=True)
class TrainingPlan:
    """Integers of a run: global batch, tokens a sequence, sequences of a microbatch, ranks, parts of the model a device
    holds."""

    batch: int
    sequence: int
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    microbatch: int = 1
    interleave: int = 1
    recompute: str = "none"
    sequence_parallel: bool = False
    optimizer: str = "adam"
    shard_optimizer: bool = False
    overlap_gradients: bool = False

    @property
    def devices(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def microbatches(self) -> int:
        """Of each data-parallel replica."""
        return self.batch // (self.data_parallel * self.microbatch)

    def arguments(self) -> dict:
        """Keywords of `training_step`."""
        given = asdict(self)
        for name in ("tensor", "pipeline", "data"):
            given[name] = given.pop(f"{name}_parallel")
        return {name: float(value) if type(value) is int else value for name, value in given.items()}


def checked(plan: TrainingPlan, name: str, spec: Transformer, machine: Machine) -> TrainingPlan:
    """The plan as it is. Raises ValueError in one line for sizes that are no whole numbers of at least 1 or do not divide,
    unknown names, a sequence beyond the model's limit, and more devices than a package has where nothing leads out of it."""
    for field in (
        "batch",
        "sequence",
        "tensor_parallel",
        "pipeline_parallel",
        "data_parallel",
        "microbatch",
        "interleave",
    ):
        value = getattr(plan, field)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{field} is {value!r}; allowed: an integer of at least 1")
    if plan.recompute not in RECOMPUTE:
        raise unknown_name("recompute", plan.recompute, RECOMPUTE)
    if plan.optimizer not in STATE_BYTES:
        raise unknown_name("optimizer", plan.optimizer, STATE_BYTES)
    if spec.limit and plan.sequence > spec.limit:
        raise ValueError(f"sequence is {plan.sequence}; allowed for {name}: 1 to {spec.limit} (learned positions)")
    t, p, v, d = plan.tensor_parallel, plan.pipeline_parallel, plan.interleave, plan.data_parallel
    for what, count in ((f"{spec.heads} heads", spec.heads), (f"{spec.hidden} units of the MLP", spec.hidden)):
        if count % t:
            raise ValueError(f"tensor_parallel is {t}; allowed for {name}: divisors of its {what}{_divisors(count, t)}")
    if spec.kv % t and t % spec.kv:
        raise ValueError(f"tensor_parallel is {t}; allowed for {name}: divisors or multiples of its {spec.kv} KV heads")
    if spec.layers % (p * v):
        how = f"pipeline_parallel x interleave is {p} x {v}" if v > 1 else f"pipeline_parallel is {p}"
        raise ValueError(
            f"{how}; allowed for {name}: divisors of its {spec.layers} layers{_divisors(spec.layers, p * v)}"
        )
    if plan.batch % (d * plan.microbatch):
        raise ValueError(
            f"batch is {plan.batch}; allowed: a multiple of data_parallel x microbatch = {d} x {plan.microbatch}"
        )
    if v > 1 and (p == 1 or plan.microbatches % p):
        raise ValueError(
            f"interleave is {v} with {p} pipeline stages and {plan.microbatches} microbatches; allowed: 1, or more with several stages and "
            "a multiple of as many microbatches"
        )
    if plan.sequence_parallel and plan.sequence % t:
        raise ValueError(
            f"sequence is {plan.sequence}; allowed with sequence_parallel: a multiple of tensor_parallel = {t}"
        )
    if plan.devices > machine.devices and float(machine.outside_bytes_per_s) <= 0:
        raise ValueError(
            f"tensor x pipeline x data parallel is {t} x {p} x {d} = {plan.devices} devices; allowed on {machine.name}: {machine.devices}, "
            "no link leads out of its package"
        )
    return plan


def _divisors(count: int, near: int) -> str:
    """A few of them, near the number asked for."""
    all_of = [n for n in range(1, count + 1) if count % n == 0]
    near_ones = sorted(sorted(all_of, key=lambda n: abs(n - near))[:6])
    return f" ({', '.join(map(str, near_ones))}{', ...' if len(near_ones) < len(all_of) else ''})"


_NAMES = ("recompute", "sequence_parallel", "optimizer", "shard_optimizer", "overlap_gradients")


@eqx.filter_jit
def _step(shape: TrainingShape, machine: Machine, constants: TrainingConstants, numbers: dict, names: tuple, tier: int):
    return training_step(
        shape, machine, **numbers, **dict(zip(_NAMES, names, strict=True)), tier=tier, constants=constants
    )


def train(
    model: str,
    system: System | Machine,
    plan: TrainingPlan,
    *,
    dropout: bool | None = None,
    constants: TrainingConstants = FITTED,
) -> TrainingStep:
    """The step of a model (a name, or a directory with `config.json`) on as many packages of a system as the plan needs, in
    float64.

    `dropout`: None: where the MLP is not gated. Raises ValueError for a model that training does not know and for a plan
    that cannot be.
    """
    known = decoder(model)
    spec = known.spec
    if known.weights or known.extra_parameters:
        what = f"weights in {known.weights}" if known.weights else "a vision tower"
        raise ValueError(f"{model} has {what}; training steps know dense decoders without it")
    with jax.enable_x64(True):
        machine = system if isinstance(system, Machine) else machine_of(system)
        checked(plan, model, spec, machine)
        try:
            shape = training_shape(spec, dropout=dropout)
        except ValueError as error:
            raise ValueError(f"{model}: {error}") from None
        given = plan.arguments()
        numbers = {name: np.float64(value) for name, value in given.items() if name not in _NAMES}
        names = tuple(given[name] for name in _NAMES)
        step = _step(shape, machine, constants, numbers, names, machine.memory)
        return jax.tree.map(np.asarray, step)


def least_devices(
    model: str, system: System | Machine, plan: TrainingPlan, *, dropout: bool | None = None
) -> int | None:
    """Fewest devices on which a step fits its memory: of all tensor ranks in a package and pipeline stages that the model divides into,
    with microbatches of one sequence and stages of one part, the rest as in the plan. None: no number of them."""
    spec = decoder(model).spec
    with jax.enable_x64(True):
        machine = system if isinstance(system, Machine) else machine_of(system)
        known = [
            replace(plan, tensor_parallel=t, pipeline_parallel=p, interleave=1, microbatch=1)
            for t in range(1, machine.devices + 1)
            for p in range(1, spec.layers + 1)
        ]
        allowed = [each for each in known if _allowed(each, model, spec, machine)]
        if not allowed:
            return None
        same = ("recompute", "sequence_parallel", "optimizer", "shard_optimizer")
        shared = {name: getattr(plan, name) for name in same}
        t, p, n = (
            np.asarray([getattr(x, name) for x in allowed], float)
            for name in ("tensor_parallel", "pipeline_parallel", "microbatches")
        )
        length = float(plan.sequence)  # of the one sequence of a microbatch
        memory = training_memory(
            training_shape(spec, dropout=dropout), tokens=length, sequence=length, microbatches=n, tensor=t, pipeline=p,
            data=float(plan.data_parallel), interleave=1.0, **shared,
        )  # fmt: skip
        enough = np.asarray(memory.total_bytes) <= float(machine.tiers.capacity_bytes[machine.memory])
        return min((x.devices for x, fits in zip(allowed, enough, strict=True) if fits), default=None)


def _allowed(plan: TrainingPlan, name: str, spec: Transformer, machine: Machine) -> bool:
    try:
        checked(plan, name, spec, machine)
    except ValueError:
        return False
    return True


_LARGEST_MICROBATCH, _PARTS = 4, 3


def usual_plan(
    model: str, *, batch: int, sequence: int, tensor_parallel: int, pipeline_parallel: int = 1, data_parallel: int = 1,
    recompute: str = "none", microbatch: int | None = None, interleave: int | None = None, sequence_parallel: bool | None = None, **more
) -> TrainingPlan:  # fmt: skip
    """A plan in which what is None is as Megatron-LM ran (arXiv 2205.05198, table 3 and section 6): microbatches of one
    sequence where there are pipeline stages, else as large as divides the batch, at most 4; 3 interleaved parts where
    layers and microbatches divide so; sequence parallelism with selective recompute. Nothing is checked; `more`: other fields.

    Raises ValueError for an unknown model.
    """
    layers = decoder(model).spec.layers
    whole = min(batch, tensor_parallel, pipeline_parallel, data_parallel) >= 1
    if microbatch is None:
        mine = batch // data_parallel if whole and batch % data_parallel == 0 else 0
        sizes = [n for n in range(1, _LARGEST_MICROBATCH + 1) if mine % n == 0] if pipeline_parallel == 1 else []
        microbatch = max(sizes, default=1) if mine else 1
    if interleave is None:
        each = batch // (data_parallel * microbatch) if whole and microbatch > 0 else 0
        divide = pipeline_parallel > 1 and each % pipeline_parallel == 0 and layers % (pipeline_parallel * _PARTS) == 0
        interleave = _PARTS if each and divide else 1
    if sequence_parallel is None:
        sequence_parallel = recompute == "selective" and tensor_parallel > 1 and sequence % tensor_parallel == 0
    return TrainingPlan(
        batch, sequence, tensor_parallel, pipeline_parallel, data_parallel, microbatch, interleave, recompute,
        sequence_parallel=sequence_parallel, **more,
    )  # fmt: skip


PUBLISHED = {
    "none": ("none", False),
    "selective": ("selective", False),
    "full": ("full", False),
    "seqsel": ("selective", True),
}


def published_plan(
    model: str, *, devices: int, batch: int, sequence: int, tensor: int, pipeline: int, recompute: str
) -> TrainingPlan:
    """The plan of a measured step, whose table tells no more than this. `recompute`: none, selective, full, or `seqsel`,
    sequence parallelism with selective recompute; the rest as `usual_plan`.

    Raises ValueError for an unknown model or `recompute`, and for devices that the ranks do not divide.
    """
    if recompute not in PUBLISHED:
        raise unknown_name("training_activation_recompute", recompute, PUBLISHED)
    if devices < 1 or tensor * pipeline < 1 or devices % (tensor * pipeline):
        raise ValueError(f"n_gpu is {devices}; allowed: a multiple of tensor x pipeline parallel = {tensor * pipeline}")
    mode, split = PUBLISHED[recompute]
    return usual_plan(
        model, batch=batch, sequence=sequence, tensor_parallel=tensor, pipeline_parallel=pipeline,
        data_parallel=devices // (tensor * pipeline), recompute=mode, sequence_parallel=split,
    )  # fmt: skip
