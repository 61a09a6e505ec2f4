"""Attention maps of trained networks: recording, through nnU-Net's sliding window, figures."""

from nnunet_attn.maps.record import record_attention

__all__ = ["record_attention"]
