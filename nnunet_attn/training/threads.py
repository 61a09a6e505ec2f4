"""How many threads a training on the CPU takes."""

import os

import torch

VARIABLE = "NNUNET_ATTN_THREADS"


def limit_threads() -> None:
    """Limit torch to the number of threads in the environment variable NNUNET_ATTN_THREADS, if it is set.

    ``nnUNetv2_train -device cpu`` takes all cores, whatever OMP_NUM_THREADS says. OMP_THREAD_LIMIT is no way around
    that: with it the first backward pass hangs.

    Raises:
        ValueError: the variable is no positive whole number.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        return
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{VARIABLE} must be a positive whole number, got {value!r}")
    torch.set_num_threads(int(value))
