"""What still differs between a paper's training and ``_paper`` on plans with its input size. Standard library only."""

from nnunet_attn.trainer_names import parse_trainer_name

COMMON = (
    (
        "nnU-Net draws slices at random, cases equally often and a third of the slices with foreground; the papers "
        "pass over all slices once an epoch, so an epoch here has as many steps, not the same slices"
    ),
    "the Dice loss is nnU-Net's: background left out, plain denominators",
    "slices are resampled by nnU-Net (spline of order 3 for images); pictures are resized by Pillow",
    "gradients are clipped at a norm of 12, as nnU-Net always does, before any clip of the paper",
    "nnU-Net predicts the mean over flips; nnUNetv2_predict --disable_tta predicts once, as the papers do",
    "training is in half precision on a GPU, as always in nnU-Net",
)
FAMILY = {
    "dcau_net": (
        (
            "the poly schedule, the angle of rotation (20 degrees) and the probabilities (1/2) are ours; the paper "
            "names none"
        ),
        (
            "the encoder starts from scratch unless NNUNET_ATTN_PRETRAINED names weights of the same encoder "
            "(DCAU-Net's; for DiffCA nnU-Net's): the paper's ImageNet weights are not public"
        ),
        "the paper does not say which epoch it scores; the study files take the last",
    ),
    "dual_cross_attention": (
        "the paper keeps the epoch that is best on the test split, which we do not",
        "the smoothing of the Dice loss is nnU-Net's, not 1",
    ),
    "fias": (
        "the paper names no number of epochs: 1000 of 250 iterations, and the poly schedule, are ours",
        "angle (20 degrees), zoom (0.7 to 1.4), shift (a tenth) and their probabilities (1/2) are ours",
        "the paper's printed means are of five trainings",
    ),
    "emcad": (
        "turns by multiples of 90 degrees, which half of the released training's images get, are left out",
        (
            "the best checkpoint is chosen by nnU-Net's moving average of the validation's pseudo Dice, not by Dice of "
            "whole volumes"
        ),
    ),
}
FAMILY["xattnres"] = FAMILY["emcad"]
PICTURES = (
    (
        "cross-entropy and Dice, equally weighted, in place of the released weighted BCE + IoU, which weighs pixels at "
        "borders more"
    ),
    "pictures are divided by 255; the released training normalises by ImageNet's mean and deviation",
)


def paper_differences(trainer: str) -> list[str]:
    """Sentences on what differs, for a trainer with a paper's recipe; empty for all others."""
    parsed = parse_trainer_name(trainer)
    if parsed is None or not (parsed.recipe or "").startswith("paper"):
        return []
    more = PICTURES if parsed.recipe == "paperPictures" else ()
    return [*FAMILY.get(parsed.family or "", ()), *more, *COMMON]
