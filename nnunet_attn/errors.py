"""What the user can mend. Standard library only."""


class UserError(Exception):
    """Wrong input or set-up: one line that names what is wrong, what was expected and what to do.

    ``nnunet-attn`` prints it without a traceback and leaves with exit code 1.
    """
