"""The networks of other libraries that have a trainer here, as rows like those of the catalogue.

Counts are of the libraries' own networks; tests hold them to it where the extra is installed.
"""

from nnunet_attn.catalog import Cost, Entry, Family

MONAI = "library version: MONAI 1.6 or newer, extra monai"
SMP = "library version: segmentation_models_pytorch 0.6 or newer, extra smp"

# Of the papers that compare with a network, the recipes that it takes, so that it can be a row of their tables.
DCAU_NET = {"paperDCAUNet": "the recipe of DCAU-Net's paper for Synapse"}
DCAU_NET_ACDC = {"paperDCAUNetACDC": "the recipe of DCAU-Net's paper for ACDC"}
FIAS = {"paperFIAS": "the recipe of FIAS's paper, with stock loss terms"}
XATTNRES = {"paperXAttnRes": "the recipe of XAttnRes's paper for polyps and ISIC, with stock loss terms"}


def _monai(
    name: str, paper: str, trainer: str, network: str, cost: Cost, recipes: dict[str, str] | None = None
) -> Entry:
    return Entry(
        family=Family(f"MONAI's {name}", paper, MONAI, recipes or {}),
        trainer=f"nnUNetTrainerMONAI{trainer}",
        network=f"monai.networks.nets.{network}",
        cost=cost,
        dimensions=(2, 3),
        file="monai_networks",
    )


def _smp(name: str, paper: str, trainer: str, network: str, cost: Cost, recipes: dict[str, str] | None = None) -> Entry:
    return Entry(
        family=Family(f"SMP's {name}", paper, SMP, recipes or {}),
        trainer=f"nnUNetTrainerSMP{trainer}",
        network=f"segmentation_models_pytorch.{network}",
        cost=cost,
        file="smp_networks",
    )


LIBRARY_ENTRIES: tuple[Entry, ...] = (
    _monai(
        "Attention U-Net",
        "arXiv:1804.03999",
        "AttentionUNet",
        "AttentionUnet",
        Cost(7_940_585, 8.126),
        DCAU_NET | XATTNRES,
    ),
    _monai("U-Net++", "arXiv:1807.10165", "UNetPlusPlus", "BasicUNetPlusPlus", Cost(2_411_812, 12.5416), XATTNRES),
    _monai("UNETR", "arXiv:2103.10504", "UNETR", "UNETR", Cost(87_681_401, 19.946), DCAU_NET_ACDC | FIAS),
    _monai("Swin UNETR", "arXiv:2201.01266", "SwinUNETR", "SwinUNETR", Cost(25_139_667, 13.5015)),
    _monai("SegResNet", "arXiv:1810.11654", "SegResNet", "SegResNet", Cost(6_299_337, 11.9266)),
    _monai("MedNeXt", "arXiv:2303.09975", "MedNeXt", "MedNeXt", Cost(10_432_233, 10.8774)),
    _smp("U-Net", "arXiv:1505.04597", "UNet", "Unet", Cost(24_437_529, 6.0404)),
    _smp("U-Net++", "arXiv:1807.10165", "UNetPlusPlus", "UnetPlusPlus", Cost(26_079_769, 14.1328)),
    _smp("DeepLabV3+", "arXiv:1802.02611", "DeepLabV3Plus", "DeepLabV3Plus", Cost(26_679_641, 7.0049), XATTNRES),
    _smp("SegFormer", "arXiv:2105.15203", "SegFormer", "Segformer", Cost(24_724_425, 4.1996)),
    _smp("UPerNet", "arXiv:1807.10221", "UPerNet", "UPerNet", Cost(37_286_729, 14.6535)),
)
