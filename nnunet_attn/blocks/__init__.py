"""The ideas of the papers, one per file: tensors in, tensors out.

``from nnunet_attn.blocks import DualCrossAttention``: a block is imported when it is asked for. ``__init__.pyi`` lists
them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
