"""Recipes of the papers and arguments of the ablations, by trainer, as data. Standard library only.

Where each number is from, and what is ours where a paper is silent, stands with the trainer in ``trainers/``. A trainer
may have its tables in its class instead; they are here so that ``nnunet-attn info`` need not import torch.
"""

from typing import Any, NamedTuple

from nnunet_attn.recipe import Augmentation

Named = dict[str, dict[str, Any]]


class Tables(NamedTuple):
    """Of one trainer.

    Attributes:
        paper_recipes: Fields of ``Recipe`` by suffix.
        ablations: Keyword arguments of the network by suffix.
    """

    paper_recipes: Named
    ablations: Named = {}


DCAU_NET = {
    "initial_lr": 1e-3,
    "weight_decay": 1e-4,
    "decay_1d": True,
    "betas": (0.9, 0.999),
    "warmup": 0.0,
    "clip": 12.0,
    "num_epochs": 400,
    "passes": True,
    "weight_ce": 0.4,
    "weight_dice": 0.6,
    "augmentation": Augmentation(rotation=20.0),
}
DCAU_NET_ACDC = DCAU_NET | {"initial_lr": 3e-4}
DUAL_CA = {
    "optimizer": "Adam",
    "initial_lr": 1e-4,
    "weight_decay": 0.0,
    "betas": (0.9, 0.999),
    "warmup": 0.0,
    "schedule": "constant",
    "clip": 12.0,
    "num_epochs": 200,
    "passes": True,
    "weight_ce": 0.0,
    "weight_dice": 1.0,
    "augmentation": Augmentation(rotation=60.0, p_rotation=0.2, p_mirror=0.2),
}
EMCAD = {
    "initial_lr": 1e-4,
    "weight_decay": 1e-4,
    "decay_1d": True,
    "betas": (0.9, 0.999),
    "warmup": 0.0,
    "schedule": "constant",
    "clip": 12.0,
    "num_epochs": 300,
    "passes": True,
    "weight_ce": 0.3,
    "weight_dice": 0.7,
    "augmentation": Augmentation(rotation=20.0),
}
PICTURES = EMCAD | {
    "num_epochs": 200,
    "scales": (0.75, 1.0, 1.25),
    "clip": 0.5,
    "clip_by": "value",
    "weight_ce": 1.0,
    "weight_dice": 1.0,
}
FIAS = {
    "optimizer": "Adam",
    "initial_lr": 1e-4,
    "weight_decay": 1e-4,
    "decay_1d": True,
    "betas": (0.9, 0.999),
    "warmup": 0.0,
    "schedule": "poly",
    "clip": 12.0,
    "num_epochs": 1000,
    "weight_ce": 0.6,
    "weight_dice": 0.4,
    "mutation": "mean",
    "augmentation": Augmentation(rotation=20, p_scaling=0.5, shift=0.1),
}

DCAU_NET_RECIPES: Named = {"paper": DCAU_NET, "paperACDC": DCAU_NET_ACDC}
EMCAD_RECIPES: Named = {"paper": EMCAD | {"mutation": "sum"}, "paperPictures": PICTURES | {"mutation": "sum"}}
XATTNRES_RECIPES: Named = {"paper": EMCAD, "paperPictures": PICTURES}

SKIPS: Named = {"replace": {"mode": "replace"}, "noSkip": {"mode": "none"}, "skipOnly": {"mode": "skip"}}
POSITIONS: Named = {
    "encoderOnly": {"mode": "replace", "position": "encoder"},
    "decoderOnly": {"mode": "replace", "position": "decoder"},
}
QUERIES: Named = {
    "randomQuery": {"query_init": "random"},
    "kaimingQuery": {"query_init": "kaiming"},
    "xavierQuery": {"query_init": "xavier"},
}
DUAL_CA_TABLES = Tables(
    {"paper": DUAL_CA},
    {
        "noDCA": {"dca": False},
        "channelOnly": {"dca_kwargs": {"spatial_attention": False}},
        "spatialOnly": {"dca_kwargs": {"channel_attention": False}},
    },
)
FIAS_TABLES = Tables(
    {"paper": FIAS},
    {
        "noDMK": {"dmk": False},
        "sumFusion": {"fusion": "sum"},
        "noMixAtt": {"mixatt": False},
        "noAttention": {"attention": False, "fusion": "sum", "mixatt": False},
    },
)

TABLES: dict[str, Tables] = {
    "nnUNetTrainerDCAUNet": Tables(
        DCAU_NET_RECIPES,
        {
            "standardAttention": {"attention": "standard"},
            "noAttention": {"attention": "none"},
            "lambda05": {"lambda_init": 0.5},
            "lambda08": {"lambda_init": 0.8},
            "concatFusion": {"fusion": "concat"},
            "noSpatialAttention": {"fusion": "no_spatial_attention"},
            "noChannelAttention": {"fusion": "no_channel_attention"},
            "postNorm": {"norm": "post"},
        },
    ),
    "nnUNetTrainerDiffCA": Tables(
        DCAU_NET_RECIPES,
        {
            "standardAttention": {"attention": "standard"},
            "noAttention": {"attention": "none"},
            "concatFusion": {"fusion": "concat"},
        },
    ),
    **{
        f"nnUNetTrainerDualCA{host}": DUAL_CA_TABLES
        for host in ("", "UNet", "VNet", "R2UNet", "ResUNetPlusPlus", "DoubleUNet", "MultiResUNet")
    },
    "nnUNetTrainerEMCAD": Tables(EMCAD_RECIPES, {"noAttention": {"attention": False}}),
    "nnUNetTrainerFIAS": FIAS_TABLES,
    "nnUNetTrainerMixAtt": FIAS_TABLES,
    "nnUNetTrainerXAttnRes": Tables(XATTNRES_RECIPES, SKIPS | POSITIONS | QUERIES),
    "nnUNetTrainerXAttnResUNet": Tables(
        XATTNRES_RECIPES, SKIPS | POSITIONS | QUERIES | {"concatSite": {"site": "concat"}}
    ),
    "nnUNetTrainerXAttnResEMCAD": Tables(EMCAD_RECIPES, SKIPS | QUERIES),
    "nnUNetTrainerStockAdamW": Tables({}),
    # other libraries' networks, for the rows of the papers' tables
    "nnUNetTrainerMONAIAttentionUNet": Tables({"paperDCAUNet": DCAU_NET, "paperXAttnRes": PICTURES}),
    "nnUNetTrainerMONAIUNetPlusPlus": Tables({"paperXAttnRes": PICTURES}),
    "nnUNetTrainerMONAIUNETR": Tables({"paperDCAUNetACDC": DCAU_NET_ACDC, "paperFIAS": FIAS}),
    "nnUNetTrainerMONAISwinUNETR": Tables({}),
    "nnUNetTrainerMONAISegResNet": Tables({}),
    "nnUNetTrainerMONAIMedNeXt": Tables({}),
    "nnUNetTrainerSMPUNet": Tables({}),
    "nnUNetTrainerSMPUNetPlusPlus": Tables({}),
    "nnUNetTrainerSMPDeepLabV3Plus": Tables({"paperXAttnRes": PICTURES}),
    "nnUNetTrainerSMPSegFormer": Tables({}),
    "nnUNetTrainerSMPUPerNet": Tables({}),
}

MUTATION = ("nnUNetTrainerEMCAD", "nnUNetTrainerFIAS", "nnUNetTrainerXAttnResEMCAD")  # trained by the mutation loss
