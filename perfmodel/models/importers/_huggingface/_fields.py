"""A `config.json` as typed fields: every value is looked at before anything is built from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...._names import unknown_name

_LARGEST_FILE = 2**24
_DTYPES = {
    "float64": "fp32", "float32": "fp32", "float": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16",
    "float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "auto": "fp32",
}  # fmt: skip
_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu", "gelu_fast": "gelu", "gelu_python": "gelu", "gelu_pytorch_tanh": "gelu",
    "quick_gelu": "gelu", "silu": "silu", "swish": "silu", "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid",
}  # fmt: skip
WIDEST, MOST_LAYERS = 2**24, 4096


def read_config(path: str | Path) -> "Config":
    """The configuration in a file or directory. Raises ValueError in one line naming the file and what is wrong with it."""
    file = Path(path)
    try:
        if file.is_dir():
            if not (file / "config.json").exists():
                raise ValueError(f"{file}: a directory without config.json")
            file = file / "config.json"
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from None
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"{file}: larger than {_LARGEST_FILE} bytes, which no configuration is")
    try:
        data = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{file}: nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise ValueError(f"{file}: the JSON is no object")
    return Config(str(file), data)


class Config:
    """Fields of one object of a configuration. `where`: the file, and the object in it, as errors name it.

    Every reader takes names a field may have, the first present one counts; null is as good as absent. Without a default a
    field must be there. Raises ValueError naming file, field, value and what is allowed.
    """

    def __init__(self, where: str, data: Mapping[str, Any], defaults: Mapping[str, Any] | None = None):
        self.where, self.data = where, {**(defaults or {}), **{k: v for k, v in data.items() if v is not None}}

    def has(self, *names: str) -> bool:
        """Whether one of the fields is there."""
        return any(name in self.data for name in names)

    def bad(self, name: str, allowed: str) -> ValueError:
        """The error of a field."""
        value = repr(self.data.get(name))
        value = value if len(value) < 60 else f"{value[:57]}..."
        return ValueError(f"{self.where}: {name} is {value}; allowed: {allowed}")

    def _find(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in self.data), None)

    def _needed(self, names: tuple[str, ...]) -> str:
        found = self._find(names)
        if found is None:
            raise ValueError(f"{self.where}: {' or '.join(names)} is missing")
        return found

    def size(self, *names: str, default: int | None = None, least: int = 1, most: int = WIDEST) -> int:
        """An integer from `least` to `most`."""
        if default is not None and self._find(names) is None:
            return default
        name = self._needed(names)
        value = self.data[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.bad(name, f"an integer from {least} to {most}")
        return value

    def divisor(self, *names: str, of: int, what: str, default: int | None = None) -> int:
        """An integer that divides `of`, which errors call `what`."""
        value = self.size(*names, default=default)
        if of % value:
            raise ValueError(
                f"{self.where}: {self._find(names) or names[0]} is {value}; allowed: a divisor of {what}, {of}"
            )
        return value

    def flag(self, *names: str, default: bool) -> bool:
        """True or false."""
        name = self._find(names)
        if name is None:
            return default
        if not isinstance(self.data[name], bool):
            raise self.bad(name, "true or false")
        return self.data[name]

    def share(self, *names: str, default: float) -> float:
        """A number above 0 and at most 1."""
        name = self._find(names)
        if name is None:
            return default
        value = self.data[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise self.bad(name, "a number above 0 and at most 1")
        return float(value)

    def number(self, *names: str, default: float) -> float:
        """A number above 0 and at most 1000."""
        name = self._find(names)
        if name is None:
            return default
        value = self.data[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1000:
            raise self.bad(name, "a number above 0 and at most 1000")
        return float(value)

    def text(self, *names: str, default: str = "") -> str:
        """A string."""
        name = self._find(names)
        if name is None:
            return default
        if not isinstance(self.data[name], str):
            raise self.bad(name, "a string")
        return self.data[name]

    def choice(self, *names: str, allowed: Mapping[str, str], default: str) -> str:
        """One of the names in `allowed`, and what it stands for there."""
        name = self._find(names)
        if name is None:
            return default
        value = self.data[name]
        if not isinstance(value, str) or value not in allowed:
            raise unknown_name(f"{self.where}: {name}", _short(value), allowed)
        return allowed[value]

    def activation(self, *names: str, default: str = "gelu") -> str:
        """The kind of an activation function."""
        return self.choice(*names, allowed=_ACTIVATIONS, default=default)

    def sizes(self, name: str, default: list[int] | None = None, most: int = 64, least: int = 1) -> list[int]:
        """A list of integers of at least `least`, at most `most` of them."""
        if default is not None and name not in self.data:
            return default
        values = self.data[self._needed((name,))]
        fine = isinstance(values, list) and 0 < len(values) <= most
        if not fine or any(isinstance(v, bool) or not isinstance(v, int) or not least <= v <= WIDEST for v in values):
            raise self.bad(name, f"a list of 1 to {most} integers from {least} to {WIDEST}")
        return values

    def names(self, name: str) -> list[str]:
        """A list of strings; none if it is not there."""
        values = self.data.get(name, [])
        if not isinstance(values, list) or any(not isinstance(v, str) for v in values):
            raise self.bad(name, "a list of strings")
        return values

    def nested(self, name: str, defaults: Mapping[str, Any] | None = None) -> "Config":
        """An object inside this one."""
        value = self.data[self._needed((name,))]
        if not isinstance(value, dict):
            raise self.bad(name, "an object")
        return Config(f"{self.where}: {name}", value, defaults)

    def dtype(self) -> str:
        """The precision that the checkpoint is meant to be loaded in; fp32 where it says nothing, as the library takes it."""
        name = self._find(("dtype", "torch_dtype"))
        if name is None:
            return "fp32"
        value = self.data[name]
        if not isinstance(value, str) or value.removeprefix("torch.") not in _DTYPES:
            raise unknown_name(f"{self.where}: {name}", _short(value), _DTYPES)
        return _DTYPES[value.removeprefix("torch.")]

    def weight_dtype(self) -> str | None:
        """The precision of quantised weights of the blocks' dense layers; None where they are not quantised."""
        if not self.has("quantization_config"):
            return None
        config = self.nested("quantization_config")
        named = dict(
            fp8="fp8", fbgemm_fp8="fp8", mxfp4="mxfp4", gptq="", awq="", bitsandbytes="", modelopt="", eetq="int8"
        )
        named["compressed-tensors"] = ""
        method = config.choice(
            "quant_method", allowed={name: name for name in named},
            default="bitsandbytes" if config.has("load_in_4bit", "load_in_8bit") else "",
        )  # fmt: skip
        if not method:
            raise ValueError(f"{config.where}: quant_method is missing")
        if named[method]:
            return named[method]
        if method == "bitsandbytes":
            return "int4" if config.flag("load_in_4bit", "_load_in_4bit", default=False) else "int8"
        if method == "modelopt":
            return config.choice("quant_algo", allowed={"FP8": "fp8", "NVFP4": "nvfp4"}, default="fp8")
        if method == "compressed-tensors":
            groups = config.nested("config_groups")
            first = next(iter(groups.data), "group_0")
            config = groups.nested(first).nested("weights")
            if config.text("type", default="int") == "float" and config.size("num_bits", default=8) == 8:
                return "fp8"
        bits = config.size("bits", "num_bits", default=4)
        if bits not in (4, 8):
            raise config.bad("bits" if config.has("bits") else "num_bits", "4 or 8")
        return f"int{bits}"


def _short(value: object) -> object:
    text = str(value)
    return text if len(text) < 60 else f"{text[:57]}..."
