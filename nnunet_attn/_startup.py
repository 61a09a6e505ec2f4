"""Runs when Python starts: tells nnU-Net where our trainers are, and does nothing else.

nnU-Net 2.8 looks for trainers in the folders that the environment variable ``nnUNet_extTrainer`` lists.
``register`` appends one folder to it. A value that is already there is kept, child processes inherit the result, and
``NNUNET_ATTN_NO_AUTOLOAD=1`` switches all of it off. See "How nnU-Net finds the trainers" in docs/start.md.
"""

import os

PACKAGE = os.path.dirname(os.path.abspath(__file__))


def register() -> None:
    folder = os.path.join(PACKAGE, "_discovery")
    if os.environ.get("NNUNET_ATTN_NO_AUTOLOAD") == "1" or not os.path.isdir(folder):
        return
    listed = os.environ.get("nnUNet_extTrainer", "")
    if folder not in listed.split(os.pathsep):
        os.environ["nnUNet_extTrainer"] = listed + os.pathsep + folder if listed else folder
