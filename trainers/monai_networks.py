"""Networks of MONAI (extra ``monai``), as MONAI has them, 2D and 3D, under our recipe and from scratch.

``_paperDCAUNet`` and the like: the recipe of that paper, for the row of its tables.
"""

from nnunet_attn.paper_tables import TABLES
from nnunet_attn.training.library import Library, LibraryTrainer


class nnUNetTrainerMONAIAttentionUNet(LibraryTrainer):
    """Attention U-Net (arXiv:1804.03999) with five stages of 32 to 512 features."""

    library = Library(
        "monai.networks.nets.AttentionUnet",
        {"channels": (32, 64, 128, 256, 512), "strides": (2, 2, 2, 2)},
        size_divisor=16,
        extra="monai",
    )
    dimensions = (2, 3)
    paper_recipes, _ = TABLES["nnUNetTrainerMONAIAttentionUNet"]


class nnUNetTrainerMONAIUNetPlusPlus(LibraryTrainer):
    """U-Net++ (arXiv:1807.10165), MONAI's ``BasicUNetPlusPlus``; its last of four maps is the prediction."""

    library = Library(
        "monai.networks.nets.BasicUNetPlusPlus",
        size_divisor=16,
        extra="monai",
        unused=("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"),  # of the other three maps
    )
    dimensions = (2, 3)
    paper_recipes, _ = TABLES["nnUNetTrainerMONAIUNetPlusPlus"]


class nnUNetTrainerMONAIUNETR(LibraryTrainer):
    """UNETR (arXiv:2103.10504), with position embeddings of the plans' patch."""

    library = Library("monai.networks.nets.UNETR", size_divisor=16, extra="monai")
    dimensions = (2, 3)
    paper_recipes, _ = TABLES["nnUNetTrainerMONAIUNETR"]


class nnUNetTrainerMONAISwinUNETR(LibraryTrainer):
    """Swin UNETR (arXiv:2201.01266) of 48 features, as its authors trained it."""

    library = Library("monai.networks.nets.SwinUNETR", {"feature_size": 48}, size_divisor=32, extra="monai")
    dimensions = (2, 3)


class nnUNetTrainerMONAISegResNet(LibraryTrainer):
    """SegResNet (arXiv:1810.11654) of 32 features, as in the paper, without its variational branch."""

    library = Library("monai.networks.nets.SegResNet", {"init_filters": 32}, size_divisor=8, extra="monai")
    dimensions = (2, 3)


class nnUNetTrainerMONAIMedNeXt(LibraryTrainer):
    """MedNeXt (arXiv:2303.09975) of the paper's size B with kernels of 3."""

    library = Library(
        "monai.networks.nets.MedNeXt",
        {
            "kernel_size": 3,
            "encoder_expansion_ratio": (2, 3, 4, 4),
            "decoder_expansion_ratio": (4, 4, 3, 2),
            "bottleneck_expansion_ratio": 4,
            "use_residual_connection": True,
        },
        size_divisor=16,
        extra="monai",
    )
    dimensions = (2, 3)
