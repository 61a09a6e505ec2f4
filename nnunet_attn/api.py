"""What other packages may build on, in one place: ``from nnunet_attn.api import NetworkTrainer``.

These names, the blocks (``nnunet_attn.blocks``) and the networks (``nnunet_attn.architectures``) are kept as
CONTRIBUTING.md promises. Everything else may change at any time. A name is imported when it is asked for, so that a
row imports neither torch nor nnU-Net.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nnunet_attn.catalog import Cost, Entry, Family
    from nnunet_attn.recipe import Augmentation, Recipe
    from nnunet_attn.testing import NetworkReport, assert_network, check_network
    from nnunet_attn.training.base import NetworkTrainer, PlanDrivenTrainer
    from nnunet_attn.training.library import Library, LibraryTrainer

__all__ = [
    "Augmentation",
    "Cost",
    "Entry",
    "Family",
    "Library",
    "LibraryTrainer",
    "NetworkReport",
    "NetworkTrainer",
    "PlanDrivenTrainer",
    "Recipe",
    "assert_network",
    "check_network",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    "nnunet_attn",
    submod_attrs={
        "catalog": ["Cost", "Entry", "Family"],
        "recipe": ["Augmentation", "Recipe"],
        "testing": ["NetworkReport", "assert_network", "check_network"],
        "training.base": ["NetworkTrainer", "PlanDrivenTrainer"],
        "training.library": ["Library", "LibraryTrainer"],
    },
)
