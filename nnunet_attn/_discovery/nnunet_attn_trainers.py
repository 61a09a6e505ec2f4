"""The one module that nnU-Net scans for our trainers.

nnU-Net imports it as a top-level module, asks ``hasattr(module, NAME)`` and forgets the module afterwards, so no class
may be defined here: this file hands out the classes of ``nnunet_attn.trainers``, which pickle and stay the same.
Names that are not ours cost one look into the catalogue and import nothing.
"""


def __getattr__(name: str) -> type:
    from nnunet_attn.trainer_names import hint, parse_trainer_name

    if parse_trainer_name(name) is None:
        if line := hint(name):
            import sys

            print(line, file=sys.stderr)
        raise AttributeError(name)
    from nnunet_attn import trainers

    return getattr(trainers, name)
