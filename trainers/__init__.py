"""All trainers by name: ``getattr(nnunet_attn.trainers, "nnUNetTrainerDCAUNet_SGD_2epochs_20iterations")``.

The trainer of each network is a class in the file of its family, which holds the arguments of its ablations, too. All
other names are composed: ablations, and on these and on every other trainer that nnU-Net finds the suffixes (``_SGD``
and ``_paper`` on ours only). A composed class is made once, kept here under its name, and so pickles.
"""

import importlib
import sys

from nnunet_attn.catalog import STOCK, find_entry, written_trainers
from nnunet_attn.trainer_names import parse_trainer_name


def __dir__() -> list[str]:
    return sorted(name for name, _ in written_trainers())


def __getattr__(name: str) -> type:
    parsed = parse_trainer_name(name)
    if parsed is None:
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    ours = parsed.family is not None and parsed.base != STOCK
    if ours and name == parsed.network:
        return getattr(importlib.import_module(f"{__name__}.{parsed.family}"), name)
    from nnunet_attn.training import names

    if not ours:
        base, parsed = names.find_foreign(parsed)
        if base is None:
            raise AttributeError(f"module {__name__!r} has no trainer {name!r}: nnU-Net finds no {parsed.base}")
        if name == parsed.base:
            return base
        made = names.compose(base, parsed, name, __name__)
    elif name == parsed.base and (entry := find_entry(name)):
        made = names.compose_ablation(name, entry, sys.modules[__name__])
    else:
        made = names.compose(getattr(sys.modules[__name__], parsed.base), parsed, name, __name__)
    globals()[name] = made
    return made
