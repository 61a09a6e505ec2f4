"""The numbers of a training (``Recipe``) and what they say in words. Standard library only, so that ``info`` is fast.

What is made of them, optimiser, schedule and augmentation, is in ``nnunet_attn.training.recipe``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Augmentation:
    """A paper's geometric augmentation in place of nnU-Net's; intensity transforms are left out.

    Attributes:
        rotation: Largest angle in degrees.
        p_rotation: Probability of a rotation.
        p_mirror: Probability of a flip, per axis.
        p_scaling: Probability of nnU-Net's zoom by 0.7 to 1.4.
        shift: Largest shift along each axis, as a share of the patch; zeros and background come in at the border.
        p_shift: Probability of a shift.
    """

    rotation: float
    p_rotation: float = 0.5
    p_mirror: float = 0.5
    p_scaling: float = 0.0
    shift: float = 0.0
    p_shift: float = 0.5


@dataclass(frozen=True)
class Recipe:
    """One training recipe; the defaults are ours for every family (AdamW as in nnU-Net's Primus trainers).

    Attributes:
        optimizer: "AdamW", "Adam" (L2 decay), or "SGD": stock nnU-Net's optimiser, which has no warm-up and no betas,
            decays all parameters and follows the poly schedule; ``SGD`` below is such a recipe.
        decay_1d: Whether norms, biases and other 1-d parameters decay, too, as by torch's default and so in the papers.
        warmup: Share of the epochs with linearly rising rate, at least one epoch where it is not 0.
        schedule: "poly" (exponent 0.9) or "constant".
        clip: Largest gradient norm; nnU-Net itself clips at 12.
        clip_by: "norm", or "value": then ``clip`` bounds each component of the gradient.
        passes: Whether an epoch is one pass over the training slices on plans with an input size (a paper's epoch).
        scales: Each batch is stepped on at these scales, one after the other (2D only).
        weight_ce, weight_dice: Weights of nnU-Net's two loss terms (BCE in place of CE with regions).
        mutation: How the losses of the subsets of prediction maps combine, "mean" or "sum" (mutation loss only).
        augmentation: A paper's augmentation; None is nnU-Net's.
    """

    optimizer: str = "AdamW"
    initial_lr: float = 3e-4
    weight_decay: float = 5e-2
    decay_1d: bool = False
    betas: tuple[float, float] | None = (0.9, 0.98)
    warmup: float = 0.05
    schedule: str = "poly"
    clip: float = 1.0
    clip_by: str = "norm"
    num_epochs: int = 1000
    num_iterations_per_epoch: int = 250
    weight_ce: float = 1.0
    weight_dice: float = 1.0
    mutation: str = "mean"
    augmentation: Augmentation | None = None
    passes: bool = False
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.optimizer not in ("AdamW", "Adam", "SGD"):
            raise ValueError(f"optimizer must be AdamW, Adam or SGD, got {self.optimizer!r}")
        if self.schedule not in ("poly", "constant"):
            raise ValueError(f"schedule must be poly or constant, got {self.schedule!r}")
        if self.clip_by not in ("norm", "value"):
            raise ValueError(f"clip_by must be norm or value, got {self.clip_by!r}")
        if self.mutation not in ("mean", "sum"):
            raise ValueError(f"mutation must be mean or sum, got {self.mutation!r}")
        if self.optimizer == "SGD":
            asked = {"schedule": "poly", "warmup": 0.0, "betas": None, "decay_1d": True}
            ignored = [f"{key}={getattr(self, key)!r}" for key, value in asked.items() if getattr(self, key) != value]
            if ignored:
                raise ValueError(
                    f"SGD is stock nnU-Net's and does not act on {', '.join(ignored)}; it takes "
                    f"{', '.join(f'{key}={value!r}' for key, value in asked.items())}"
                )
        elif self.betas is None:
            raise ValueError(f"{self.optimizer} needs betas")


def describe_recipe(recipe: Recipe, epochs: int, iterations: int, *, fixed: bool = False) -> dict[str, str]:
    """A recipe in words: title and text of each line, with the epochs and iterations that a trainer's name asks for.

    Args:
        recipe: The recipe.
        epochs, iterations: Of the training.
        fixed: Whether the trainer's name gives its schedule, which takes the place of passes.
    """
    if recipe.optimizer == "SGD":
        optimizer, decayed = "SGD, momentum 0.99 with Nesterov's", ""
    else:
        betas = " and ".join(f"{beta:g}" for beta in recipe.betas or ())
        optimizer, decayed = (
            f"{recipe.optimizer}, betas {betas}",
            "" if recipe.decay_1d else " (not of norms and biases)",
        )
    length = f"{iterations} iterations"
    if recipe.passes and not fixed:
        length = f"passes over the training slices ({length} on plans without an input size)"
    rises = f"rises over the first {recipe.warmup:.0%} of them, then " if recipe.warmup else ""
    rate = "falls as (1 - t)^0.9" if recipe.schedule == "poly" else "stays"
    loss = f"{recipe.weight_ce:g} x cross-entropy + {recipe.weight_dice:g} x Dice, nnU-Net's"
    lines = {
        "optimiser": f"{optimizer}, rate {recipe.initial_lr:g}, weight decay {recipe.weight_decay:g}{decayed}",
        "schedule": f"{epochs} epochs of {length}; the rate {rises}{rate}",
        "gradients": f"clipped at {'norm' if recipe.clip_by == 'norm' else 'values of'} {recipe.clip:g}",
        "loss": loss,
        "augmented": "as nnU-Net does",
    }
    if recipe.augmentation is not None:
        shown = {
            "rotation by up to {0.rotation:g} degrees, probability {0.p_rotation:g}": recipe.augmentation.rotation,
            "flip of each axis, probability {0.p_mirror:g}": recipe.augmentation.p_mirror,
            "zoom by 0.7 to 1.4, probability {0.p_scaling:g}": recipe.augmentation.p_scaling,
            "shift by up to {0.shift:.0%} of the patch, probability {0.p_shift:g}": recipe.augmentation.shift,
        }
        lines["augmented"] = "; ".join(t.format(recipe.augmentation) for t, there in shown.items() if there)
    if recipe.scales != (1.0,):
        lines["scales"] = f"each batch at {', '.join(f'{scale:g}' for scale in recipe.scales)}, one step each"
    return lines


SGD = {
    "optimizer": "SGD",
    "initial_lr": 1e-2,
    "weight_decay": 3e-5,
    "decay_1d": True,
    "betas": None,
    "warmup": 0.0,
    "schedule": "poly",
    "clip": 12.0,
}
