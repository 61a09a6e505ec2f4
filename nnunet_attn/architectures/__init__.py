"""Whole networks, one paper per file, composed of ``nnunet_attn.blocks``."""
