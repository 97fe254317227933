"""Print the parameters of every configuration here, as the class of the transformers library that it names counts them.

    python count.py

Needs torch and transformers (the figures in tests/workload/importers/test_huggingface.py: torch 2.15.0, transformers 5.23.0); the
tests need neither. Models are built on the meta device, so nothing is downloaded and nothing takes memory.
"""

import json
from pathlib import Path

import torch
import transformers

for path in sorted(Path(__file__).parent.glob("*/config.json")):
    fields = json.loads(path.read_text())
    fields.pop("quantization_config", None)  # counts do not depend on it, loading kernels does
    model_class = getattr(transformers, fields["architectures"][0])
    with torch.device("meta"):
        model = model_class(model_class.config_class.from_dict(fields))
    model.tie_weights()
    print(path.parent.name, sum(parameter.numel() for parameter in model.parameters()))
