"""Whole networks, one paper per file, composed of ``nnunet_attn.blocks``.

``from nnunet_attn.architectures import DCAUNet``: a network is imported when it is asked for. ``__init__.pyi`` lists
them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
