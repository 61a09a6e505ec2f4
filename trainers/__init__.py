"""All trainers by name: ``getattr(nnunet_attn.trainers, "nnUNetTrainerDCAUNet_SGD_2epochs_20iterations")``.

Written classes live in the file of their family. Suffixes compose on each of them and, except ``_SGD`` and ``_paper``,
on every other trainer that nnU-Net finds: the class is made once, kept here under its name, and so pickles.
"""

import importlib

from nnunet_attn.catalog import STOCK, written_trainers
from nnunet_attn.trainer_names import parse_trainer_name


def __dir__() -> list[str]:
    return sorted(name for name, _ in written_trainers())


def __getattr__(name: str) -> type:
    parsed = parse_trainer_name(name)
    if parsed is None:
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    if parsed.family is None or parsed.base == STOCK:
        from nnunet_attn.training.names import find_foreign

        base, parsed = find_foreign(parsed)
        if base is None:
            raise AttributeError(f"module {__name__!r} has no trainer {name!r}: nnU-Net finds no {parsed.base}")
    else:
        base = getattr(importlib.import_module(f"{__name__}.{parsed.family}"), parsed.base)
    if name == parsed.base:
        return base
    from nnunet_attn.training.names import compose

    globals()[name] = compose(base, parsed, name, __name__)
    return globals()[name]
