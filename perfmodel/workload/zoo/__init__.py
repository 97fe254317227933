"""Real models, built from configuration; one file a family. `BUILDERS` maps a published name to its builder."""

from . import _gpt2, _resnet

BUILDERS = {**_gpt2.BUILDERS, **_resnet.BUILDERS}
