"""All trainers by name: ``getattr(nnunet_attn.trainers, "nnUNetTrainerDCAUNet_SGD_2epochs_20iterations")``.

Written classes live in the file of their family. A recipe or schedule suffix composes on each of them (and a schedule
on stock ``nnUNetTrainer``, where nnU-Net lacks it): the class is made once, kept here under its name, and so pickles.
"""

import importlib

from nnunet_attn.catalog import STOCK, parse_trainer_name, written_trainers


def __dir__():
    return sorted(name for name, _ in written_trainers())


def __getattr__(name):
    parsed = parse_trainer_name(name)
    if parsed is None:
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    if parsed.base == STOCK:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as base
    else:
        base = getattr(importlib.import_module(f"{__name__}.{parsed.family}"), parsed.base)
    if name == parsed.base:
        return base
    from nnunet_attn.training.names import compose

    globals()[name] = compose(base, parsed, name, __name__)
    return globals()[name]
