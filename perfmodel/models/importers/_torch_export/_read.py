"""The archive that `torch.export.save` writes, without torch: a zip with the program as JSON. Weights are not read.

The schema is `torch/_export/serde/schema.py` of PyTorch (major versions 5 to 8 are laid out alike as far as this reads them).
Fields that are not listed here are skipped; what is listed has to be of its type.
"""

import io
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec

_LARGEST = 256 * 2**20  # bytes of JSON that are taken in
_OLD = "serialized_exported_program.json"  # up to PyTorch 2.6
_BROKEN = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, KeyError, ValueError, MemoryError,
    OverflowError,
)  # fmt: skip

# number of a ScalarType: (kind, bits)
SCALARS = {
    1: ("int", 8), 2: ("int", 8), 3: ("int", 16), 4: ("int", 32), 5: ("int", 64), 6: ("float", 16), 7: ("float", 32), 8: ("float", 64),
    9: ("complex", 32), 10: ("complex", 64), 11: ("complex", 128), 12: ("bool", 8), 13: ("float", 16), 28: ("int", 16),
    29: ("float", 8), 30: ("float", 8), 31: ("float", 8), 32: ("float", 8), 33: ("float", 8), 34: ("int", 32), 35: ("int", 64),
}  # fmt: skip


class Hint(msgspec.Struct):
    as_int: int | None = None


class Expression(msgspec.Struct):
    expr_str: str
    hint: Hint | None = None


class SymInt(msgspec.Struct):
    as_int: int | None = None
    as_expr: Expression | None = None


class TensorMeta(msgspec.Struct):
    dtype: int
    sizes: list[SymInt]


class Named(msgspec.Struct):
    name: str


class Optional(msgspec.Struct):
    as_tensor: Named | None = None


class SymArgument(msgspec.Struct):
    as_name: str | None = None
    as_int: int | None = None


class Argument(msgspec.Struct):
    """A tagged union: one field is set."""

    as_tensor: Named | None = None
    as_tensors: list[Named] | None = None
    as_optional_tensors: list[Optional] | None = None
    as_optional_tensor: Optional | None = None
    as_int: int | None = None
    as_ints: list[int] | None = None
    as_sym_int: SymArgument | None = None
    as_sym_ints: list[SymArgument] | None = None
    as_bool: bool | None = None
    as_string: str | None = None
    as_graph: "GraphArgument | None" = None


class NamedArgument(msgspec.Struct):
    name: str
    arg: Argument


class Node(msgspec.Struct):
    target: str
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: dict[str, Any] = {}


class Graph(msgspec.Struct):
    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[str, TensorMeta]


class GraphArgument(msgspec.Struct):
    graph: Graph
    name: str = ""


class OfParameter(msgspec.Struct):
    arg: Named
    parameter_name: str


class OfBuffer(msgspec.Struct):
    arg: Named
    buffer_name: str


class OfConstant(msgspec.Struct):
    arg: Named
    tensor_constant_name: str


class InputSpec(msgspec.Struct):
    parameter: OfParameter | None = None
    buffer: OfBuffer | None = None
    tensor_constant: OfConstant | None = None


class OfOutput(msgspec.Struct):
    arg: Argument | Named | None = None


class Signature(msgspec.Struct):
    input_specs: list[InputSpec] = []


class Module(msgspec.Struct):
    graph: Graph
    signature: Signature


class Program(msgspec.Struct):
    graph_module: Module


class Stored(msgspec.Struct):
    path_name: str = ""


class StoredWeights(msgspec.Struct):
    config: dict[str, Stored] = {}


def read_program(source: Any) -> tuple[str, str, Program, dict[str, str]]:
    """(file, name, program, where each parameter is stored) of a `.pt2` file or of a live `torch.export.ExportedProgram`.

    Raises ValueError in one line naming the file and what is wrong with it.
    """
    if isinstance(source, str | Path):
        file, name, data = str(source), Path(source).stem, source
        if not Path(source).is_file():
            raise ValueError(f"{file}: there is no such file; allowed: a .pt2 file that torch.export.save has written")
    else:
        file = name = type(source).__name__
        data = _saved(source)
    try:
        with zipfile.ZipFile(data) as archive:
            text = _member(file, archive, _program_of(file, archive))
            config = next((n for n in archive.namelist() if n.endswith("weights_config.json")), None)
            stored = _member(file, archive, config) if config else b"{}"
    except _BROKEN as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            said if said.startswith(f"{file}: ") else f"{file}: is no readable .pt2 archive: {said}"
        ) from None
    try:
        program = msgspec.json.decode(text, type=Program)
        weights = msgspec.json.decode(stored, type=StoredWeights)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{file}: its program does not follow the schema of torch.export: {said}") from None
    return file, name, program, {weight: where.path_name for weight, where in weights.config.items()}


def _saved(program: Any) -> io.BytesIO:
    """A live program, as `torch.export.save` writes it: whoever holds one has torch loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(program, "graph_signature"):
        raise ValueError(
            f"import_torch: {type(program).__name__}; allowed: a .pt2 file or a torch.export.ExportedProgram"
        )
    buffer = io.BytesIO()
    try:
        torch.export.save(program, buffer)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"import_torch: torch.export.save failed: {type(error).__name__}: {said}") from error
    buffer.seek(0)
    return buffer


def _program_of(file: str, archive: zipfile.ZipFile) -> str:
    """The member with the program."""
    names = archive.namelist()
    models = [n for n in names if n.endswith(".json") and n.rsplit("/", 2)[-2:-1] == ["models"]]
    found = (
        [n for n in names if n.rsplit("/", 1)[-1] == _OLD] or [n for n in models if n.endswith("/model.json")] or models
    )
    if not found:
        raise ValueError(
            f"{file}: holds no program (models/model.json or {_OLD}); allowed: what torch.export.save writes"
        )
    return found[0]


def _member(file: str, archive: zipfile.ZipFile, name: str) -> bytes:
    """A member, whatever size its header says."""
    with archive.open(name) as member:
        text = member.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise ValueError(
            f"{file}: {name} is larger than {_LARGEST} bytes; programs are not (weights are other members)"
        )
    return text
