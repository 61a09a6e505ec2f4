"""The ``nnunet-attn`` command; one file per sub-command, heavy imports inside its functions."""
