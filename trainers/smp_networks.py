"""Networks of segmentation_models_pytorch (extra ``smp``), 2D, under our recipe and from scratch.

``encoder`` is any name that the library has; a subclass with another encoder is a trainer of its own.
"""

from nnunet_attn.paper_tables import TABLES
from nnunet_attn.training.library import Library, LibraryTrainer

SCRATCH = {"encoder_weights": None}  # the library's default downloads weights in the constructor


class nnUNetTrainerSMPUNet(LibraryTrainer):
    """U-Net (arXiv:1505.04597) on a residual encoder."""

    library = Library("segmentation_models_pytorch.Unet", SCRATCH, size_divisor=32, extra="smp")
    encoder = "resnet34"


class nnUNetTrainerSMPUNetPlusPlus(LibraryTrainer):
    """U-Net++ (arXiv:1807.10165) on a residual encoder."""

    library = Library("segmentation_models_pytorch.UnetPlusPlus", SCRATCH, size_divisor=32, extra="smp")
    encoder = "resnet34"


class nnUNetTrainerSMPDeepLabV3Plus(LibraryTrainer):
    """DeepLabV3+ (arXiv:1802.02611) on a residual encoder."""

    library = Library("segmentation_models_pytorch.DeepLabV3Plus", SCRATCH, size_divisor=16, extra="smp")
    encoder = "resnet50"
    paper_recipes, _ = TABLES["nnUNetTrainerSMPDeepLabV3Plus"]


class nnUNetTrainerSMPSegFormer(LibraryTrainer):
    """SegFormer (arXiv:2105.15203) on its own encoder, size B2."""

    library = Library("segmentation_models_pytorch.Segformer", SCRATCH, size_divisor=32, extra="smp")
    encoder = "mit_b2"


class nnUNetTrainerSMPUPerNet(LibraryTrainer):
    """UPerNet (arXiv:1807.10221) on a residual encoder."""

    library = Library("segmentation_models_pytorch.UPerNet", SCRATCH, size_divisor=32, extra="smp")
    encoder = "resnet50"
