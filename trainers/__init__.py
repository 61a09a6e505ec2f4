"""All trainers by name: ``getattr(nnunet_attn.trainers, "nnUNetTrainerDCAUNet_SGD_2epochs_20iterations")``.

The trainer of each network is a class in the file of its family, which holds the arguments of its ablations, too;
those of other packages come from their entry points (``nnunet_attn.plugins``). All other names are composed: ablations,
and on these and on every other trainer that nnU-Net finds the suffixes (``_SGD`` and ``_paper`` only where the trainer
is a ``NetworkTrainer``). A composed class is made once, kept here under its name, and so pickles.
"""

import importlib
import sys

from nnunet_attn import plugins
from nnunet_attn.catalog import STOCK
from nnunet_attn.lookup import find_entry, find_plugin, own_trainers
from nnunet_attn.trainer_names import parse_trainer_name


def __dir__() -> list[str]:
    return sorted(name for name, _ in own_trainers())


def _plugin_class(name: str) -> type:
    """The class of another package's trainer; a reason that it cannot be had is on stderr already."""
    found = plugins.trainer_class(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}: its package is broken")
    return found


def __getattr__(name: str) -> type:
    parsed = parse_trainer_name(name)
    if parsed is None:
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    ours = parsed.family is not None and parsed.base != STOCK
    if ours and name == parsed.network:
        if find_plugin(name):
            return _plugin_class(name)
        entry = find_entry(name)
        return getattr(importlib.import_module(f"{__name__}.{(entry and entry.file) or parsed.family}"), name)
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
