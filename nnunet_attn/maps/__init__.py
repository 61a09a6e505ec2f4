"""Attention maps of trained networks: recorded while nnU-Net's sliding window runs; figures, volumes, tables."""

from nnunet_attn.maps.record import record_attention

__all__ = ["record_attention"]
