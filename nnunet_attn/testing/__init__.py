"""Checks of what nnU-Net asks of a network: ``check_network``, and ``assert_network`` for pytest."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
