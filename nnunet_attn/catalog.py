"""Every network and trainer of this package, as data. Standard library only, so that look-ups and ``--help`` are fast.

One ``Entry`` is one network with its trainer; it feeds ``nnunet-attn list``, the README table, the benchmark and the
contract tests. The class itself lives in ``trainers/<family>.py`` under the entry's trainer name, the arguments of its
ablations in ``nnunet_attn.paper_tables``. ``nnunet_attn.lookup`` finds these and those of other packages by name, and
``nnunet_attn.trainer_names`` reads names with suffixes.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Family:
    """A paper.

    Attributes:
        paper_recipes: The recipe suffixes beyond ``_SGD`` that its trainers know, with one line on what each means.
        ablations: Suffix of each ablation, with one line on what it tests. Its arguments are in the trainer's table.
        same: Second names of ablations, ``{"noAttention": "noDCA"}``: the same network with a results folder of its
            own, for every entry that has the ablation. The trainer's table does not repeat them.
    """

    title: str
    paper: str
    source: str
    paper_recipes: dict[str, str] = field(default_factory=dict)
    ablations: dict[str, str] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)

    def describe(self, ablation: str) -> str | None:
        """One line on what an ablation tests; None if there is no such ablation."""
        if ablation in self.same:
            return f"the same network as _{self.same[ablation]}: {self.ablations[self.same[ablation]]}"
        return self.ablations.get(ablation)


@dataclass(frozen=True)
class Cost:
    """Parameters, and 1e9 multiply-accumulates of one forward pass (FlopCounterMode / 2, plain path)."""

    parameters: int
    gmacs: float


@dataclass(frozen=True)
class Entry:
    """One network. Costs hold for ``input_channels``, ``num_classes`` and ``image_size``.

    Attributes:
        family: Key into ``FAMILIES`` and name of the file in ``trainers/``; or, in other rows, the family itself.
        trainer: Name of the trainer class.
        network: Dotted path of the network class, ``Net(input_channels, num_classes, *, ..., deep_supervision=False)``.
        cost: Cost of the default network.
        ablation_costs: Suffix of each ablation, with the cost of its network; None if that is the default network's.
        paper_cost: The numbers that the paper prints, with its counter, as text; empty where it prints none.
        options: Keyword arguments of the network that a user may set through ``network_kwargs``.
        arguments: Arguments that stand in for the plans, for networks that follow them.
        dimensions: Numbers of spatial axes that the network takes.
        pretrained_encoder: Name of the published encoder whose weights the network can start from.
        file: Name of the file in ``trainers/``, where that is not the family's.
    """

    family: str | Family
    trainer: str
    network: str
    cost: Cost
    ablation_costs: dict[str, Cost | None] = field(default_factory=dict)
    paper_cost: str = ""
    options: tuple[str, ...] = ()
    arguments: dict[str, object] = field(default_factory=dict)
    dimensions: tuple[int, ...] = (2,)
    input_channels: int = 3
    num_classes: int = 9
    pretrained_encoder: str = ""
    image_size: tuple[int, ...] = (224, 224)
    file: str = ""

    @property
    def about(self) -> Family:
        """The paper, and what its recipes and ablations mean."""
        return self.family if isinstance(self.family, Family) else FAMILIES[self.family]

    @property
    def key(self) -> str:
        """The key into ``FAMILIES``, or the trainer's name where the row has a family of its own."""
        return self.trainer if isinstance(self.family, Family) else self.family

    @property
    def ablations(self) -> dict[str, Cost]:
        """Suffixes of all ablations with the costs of their networks, second names at the end."""
        costs = {suffix: cost or self.cost for suffix, cost in self.ablation_costs.items()}
        return costs | {alias: costs[name] for alias, name in self.about.same.items() if name in costs}

    @property
    def trainers(self) -> dict[str, Cost]:
        """Names of the trainer and of its ablations, with their costs."""
        return {self.trainer: self.cost} | {f"{self.trainer}_{suffix}": c for suffix, c in self.ablations.items()}


STOCK = "nnUNetTrainer"
PRETRAINED_VARIABLE = "NNUNET_ATTN_PRETRAINED"  # names a file for networks with a ``pretrained_encoder``

SGD = "stock nnU-Net's recipe: SGD 0.01, poly schedule, 1000 epochs"  # what _SGD means on our trainers

PICTURES_RECIPE = "the paper's recipe for polyps and ISIC: 200 epochs, each batch at 0.75, 1 and 1.25 times its size"

FAMILIES = {
    "dcau_net": Family(
        "DCAU-Net",
        "arXiv:2603.09530",
        "from the paper alone; no code was released; on nnU-Net's own networks our design",
        {
            "paper": "the paper's recipe for Synapse: AdamW 1e-3, 400 epochs, 0.4 CE + 0.6 Dice, rotations and flips",
            "paperACDC": "the paper's recipe for ACDC: as _paper with an initial rate of 3e-4",
        },
        ablations={
            "standardAttention": "Table IV, standard attention over the same keys",
            "noAttention": "without the differential attention; depth-wise convolutions, MLPs and fusion stay (ours)",
            "lambda05": "Table IV, lambda_init fixed at 0.5 in place of the schedule over depth",
            "lambda08": "Table IV, lambda_init fixed at 0.8 in place of the schedule over depth",
            "concatFusion": "Table V, the U-Net's fusion: concatenation with the skip; attention alone",
            "noSpatialAttention": "Table V, fusion without spatial attention",
            "noChannelAttention": "Table V, fusion without channel attention",
            "postNorm": "norm after each residual, the other reading of the text; not an ablation of the paper",
        },
    ),
    "dual_cross_attention": Family(
        "Dual Cross-Attention",
        "arXiv:2303.17696",
        "six hosts equal to the released code; on nnU-Net's own networks our design",
        {"paper": "the paper's recipe: Adam 1e-4 at a constant rate, 200 epochs, Dice alone, rotations and flips"},
        ablations={
            "noDCA": "the host alone, under the same recipe",
            "channelOnly": "without the spatial attention",
            "spatialOnly": "without the channel attention",
        },
        same={"noAttention": "noDCA"},
    ),
    "fias": Family(
        "FIAS",
        "arXiv:2411.10881",
        "from the paper; encoder equal to the released DilateFormer code; on nnU-Net's own networks our design",
        {"paper": "the paper's recipe: Adam 1e-4, 0.4 Dice + 0.6 CE, rotations, zooms, shifts and flips"},
        ablations={
            "noDMK": 'Table 3, "- / CAF / MixAtt": the transformer encoder alone, the fusion keeps its gates with one '
            "input (our reading); in MixAtt without the multi-kernel branch, with host and fusion",
            "sumFusion": 'Table 3, "DMK / Sum / MixAtt": the encoders\' maps are added',
            "noMixAtt": 'Table 3, "DMK / CAF / -": the decoder without its attention (our reading)',
            "noAttention": "no attention at all, encoders summed; convolutions, MLPs and DMK stay (ours)",
        },
    ),
    "emcad": Family(
        "EMCAD",
        "arXiv:2405.06880",
        "from the paper; the released code is not used",
        {
            "paper": "the paper's recipe: AdamW 1e-4, constant rate, 300 epochs, 0.3 CE + 0.7 Dice, flips, rotation",
            "paperPictures": PICTURES_RECIPE,
        },
        ablations={
            "noAttention": "the decoder without attention and gates; the attention of the PVTv2 encoder stays (ours)",
        },
    ),
    "xattnres": Family(
        "XAttnRes",
        "arXiv:2604.03297",
        "from the paper alone; on nnU-Net's own networks our design",
        {
            "paper": "EMCAD's recipe, which the paper follows: AdamW 1e-4 at a constant rate, 300 epochs",
            "paperPictures": PICTURES_RECIPE,
        },
        ablations={
            "replace": "Table 3, XAttnRes in place of the skip connections",
            "noSkip": "Table 3, neither skip connections nor XAttnRes",
            "skipOnly": "Table 3, the host",
            "encoderOnly": "Table 4, XAttnRes in the encoder only, without skip connections",
            "decoderOnly": "Table 4, XAttnRes in the decoder only, without skip connections",
            "randomQuery": "Table 5, queries drawn from a normal distribution",
            "kaimingQuery": "Table 5, Kaiming-uniform queries",
            "xavierQuery": "Table 5, Xavier-uniform queries",
            "concatSite": "XAttnRes on the concatenation with the skip; nearest to the published parameter count",
        },
        same={"noAttention": "skipOnly"},
    ),
    "stock": Family("stock nnU-Net", "doi:10.1038/s41592-020-01008-z", "nnU-Net's own network"),
}

# What nnU-Net plans for a 2D patch of 224 x 224 or 256 x 256: arguments of its PlainConvUNet.
PLANNED_2D = {
    "n_stages": 6,
    "features_per_stage": (32, 64, 128, 256, 512, 512),
    "conv_op": "torch.nn.Conv2d",
    "kernel_sizes": ((3, 3),) * 6,
    "strides": ((1, 1), *((2, 2),) * 5),
    "n_conv_per_stage": (2,) * 6,
    "n_conv_per_stage_decoder": (2,) * 5,
    "conv_bias": True,
    "norm_op": "torch.nn.InstanceNorm2d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}

ENTRIES: tuple[Entry, ...] = (
    Entry(
        family="dcau_net",
        trainer="nnUNetTrainerDCAUNet",
        network="nnunet_attn.architectures.dcau_net.DCAUNet",
        cost=Cost(21_613_951, 4.6295),
        ablation_costs={
            "standardAttention": Cost(21_610_495, 4.6295),
            "noAttention": Cost(16_043_455, 3.9817),
            "lambda05": None,
            "lambda08": None,
            "concatFusion": Cost(20_827_865, 4.2823),
            "noSpatialAttention": Cost(21_613_657, 4.6291),
            "noChannelAttention": Cost(21_603_199, 4.6295),
            "postNorm": Cost(21_622_527, 4.6295),
        },
        paper_cost="21.56 M, 4.67 G (counter not named; fvcore gives ours 4.66)",
        options=(
            "widths",
            "depths",
            "head_width",
            "window",
            "pixel_keys_last",
            "attention",
            "lambda_init",
            "fusion",
            "norm",
            "implementation",
        ),
        pretrained_encoder="dcaunet_encoder",
    ),
    Entry(
        family="dcau_net",
        trainer="nnUNetTrainerDiffCA",
        network="nnunet_attn.architectures.diff_ca.DiffCAPlainConvUNet",
        cost=Cost(26_258_419, 11.924),
        ablation_costs={
            "standardAttention": Cost(26_257_651, 11.924),
            "noAttention": Cost(23_828_595, 11.4969),
            "concatFusion": Cost(27_930_061, 12.6942),
        },
        options=(
            "attention",
            "fusion",
            "blocks",
            "max_tokens",
            "min_stride",
            "window",
            "head_width",
            "fusion_kernel",
            "zero_start",
            "implementation",
        ),
        arguments=PLANNED_2D | {"patch_size": (224, 224)},
        dimensions=(2, 3),
    ),
    Entry(
        family="dual_cross_attention",
        trainer="nnUNetTrainerDualCA",
        network="nnunet_attn.architectures.dual_cross_attention_unets.DualCAPlainConvUNet",
        cost=Cost(20_737_197, 12.967),
        ablation_costs={
            "noDCA": Cost(20_626_637, 10.925),
            "channelOnly": Cost(20_726_637, 11.492),
            "spatialOnly": Cost(20_726_637, 12.605),
        },
        options=("dca", "dca_kwargs", "levels", "max_tokens"),
        arguments=PLANNED_2D | {"patch_size": (224, 224)},
        dimensions=(2, 3),
    ),
    Entry(
        family="dual_cross_attention",
        trainer="nnUNetTrainerDualCAUNet",
        network="nnunet_attn.architectures.dual_cross_attention_unets.DualCAUNet",
        cost=Cost(8_748_169, 14.585),
        ablation_costs={
            "noDCA": Cost(8_637_609, 12.543),
            "channelOnly": Cost(8_737_609, 13.110),
            "spatialOnly": Cost(8_737_609, 14.224),
        },
        paper_cost="8.75 M",
        options=("dca", "dca_kwargs", "activated_skips"),
    ),
    Entry(
        family="dual_cross_attention",
        trainer="nnUNetTrainerDualCAVNet",
        network="nnunet_attn.architectures.dual_cross_attention_unets.DualCAVNet",
        cost=Cost(36_080_930, 33.832),
        ablation_costs={
            "noDCA": Cost(35_970_370, 31.790),
            "channelOnly": Cost(36_070_370, 32.357),
            "spatialOnly": Cost(36_070_370, 33.471),
        },
        paper_cost="36.08 M",
        options=("dca", "dca_kwargs"),
    ),
    Entry(
        family="dual_cross_attention",
        trainer="nnUNetTrainerDualCAR2UNet",
        network="nnunet_attn.architectures.dual_cross_attention_unets.DualCAR2UNet",
        cost=Cost(9_892_553, 31.245),
        ablation_costs={
            "noDCA": Cost(9_781_993, 29.203),
            "channelOnly": Cost(9_881_993, 29.770),
            "spatialOnly": Cost(9_881_993, 30.884),
        },
        paper_cost="9.89 M",
        options=("dca", "dca_kwargs"),
    ),
    Entry(
        family="dual_cross_attention",
        trainer="nnUNetTrainerDualCAResUNetPlusPlus",
        network="nnunet_attn.architectures.dual_cross_attention_unets.DualCAResUNetPlusPlus",
        cost=Cost(13_121_932, 51.722),
        ablation_costs={
            "noDCA": Cost(13_091_244, 42.441),
            "channelOnly": Cost(13_117_900, 42.910),
            "spatialOnly": Cost(13_117_900, 51.407),
        },
        paper_cost="13.1 M",
        options=("dca", "dca_kwargs"),
    ),
    Entry(
        family="dual_cross_attention",
        trainer="nnUNetTrainerDualCADoubleUNet",
        network="nnunet_attn.architectures.dual_cross_attention_unets.DualCADoubleUNet",
        cost=Cost(30_584_780, 53.684),
        ablation_costs={
            "noDCA": Cost(29_683_820, 41.207),
            "channelOnly": Cost(30_531_980, 46.308),
            "spatialOnly": Cost(30_531_980, 50.433),
        },
        paper_cost="30.68 M (a slip, by the code 30.58 M)",
        options=("dca", "dca_kwargs"),
    ),
    Entry(
        family="dual_cross_attention",
        trainer="nnUNetTrainerDualCAMultiResUNet",
        network="nnunet_attn.architectures.dual_cross_attention_unets.DualCAMultiResUNet",
        cost=Cost(7_355_046, 14.063),
        ablation_costs={
            "noDCA": Cost(7_244_486, 12.021),
            "channelOnly": Cost(7_344_486, 12.588),
            "spatialOnly": Cost(7_344_486, 13.702),
        },
        paper_cost="7.35 M",
        options=("dca", "dca_kwargs"),
    ),
    Entry(
        family="fias",
        trainer="nnUNetTrainerFIAS",
        network="nnunet_attn.architectures.fias.FIAS",
        cost=Cost(35_619_183, 10.690),
        ablation_costs={
            "noDMK": Cost(31_344_143, 10.005),
            "sumFusion": Cost(32_088_455, 10.347),
            "noMixAtt": Cost(33_625_287, 7.589),
            "noAttention": Cost(25_222_463, 5.9914),
        },
        options=("dmk", "fusion", "mixatt", "attention", "mca_gate", "out_norm", "sr_ratio", "dropout", "drop_path"),
        pretrained_encoder="DilateFormer-Tiny",
        input_channels=1,
        image_size=(256, 256),
    ),
    Entry(
        family="fias",
        trainer="nnUNetTrainerMixAtt",
        network="nnunet_attn.architectures.mix_att.MixAttPlainConvUNet",
        cost=Cost(38_832_861, 15.2323),
        ablation_costs={
            "noDMK": Cost(38_115_421, 15.0115),
            "sumFusion": Cost(33_975_949, 14.5603),
            "noMixAtt": Cost(37_351_965, 14.467),
            "noAttention": Cost(30_061_773, 13.0853),
        },
        options=("dmk", "fusion", "mixatt", "attention", "max_tokens", "min_stride", "zero_start"),
        arguments=PLANNED_2D | {"patch_size": (224, 224)},
        dimensions=(2, 3),
    ),
    Entry(
        family="xattnres",
        trainer="nnUNetTrainerXAttnRes",
        network="nnunet_attn.architectures.xattnres.XAttnResPlainConvUNet",
        cost=Cost(22_392_845, 15.1226),
        ablation_costs={
            "replace": Cost(19_250_189, 12.1027),
            "noSkip": Cost(17_483_981, 11.2491),
            "skipOnly": Cost(20_626_637, 14.2690),
            "encoderOnly": Cost(18_050_125, 11.4704),
            "decoderOnly": Cost(18_684_045, 11.8814),
            "randomQuery": None,
            "kaimingQuery": None,
            "xavierQuery": None,
        },
        options=("mode", "position", "query_init", "query_std"),
        arguments=PLANNED_2D,
        dimensions=(2, 3),
        image_size=(256, 256),
    ),
    Entry(
        family="xattnres",
        trainer="nnUNetTrainerXAttnResUNet",
        network="nnunet_attn.architectures.xattnres.XAttnResUNet",
        cost=Cost(1_154_161, 2.5824),
        ablation_costs={
            "replace": Cost(1_028_773, 2.1046),
            "noSkip": Cost(936_973, 1.9918),
            "skipOnly": Cost(1_062_361, 2.4696),
            "encoderOnly": Cost(960_193, 2.0031),
            "decoderOnly": Cost(1_005_553, 2.0934),
            "randomQuery": None,
            "kaimingQuery": None,
            "xavierQuery": None,
            "concatSite": Cost(1_278_469, 2.8166),
        },
        paper_cost="1.28 M, 2.87 G (host 1.06 M, 2.50 G, which thop gives); concatSite comes nearest",
        options=("widths", "mode", "position", "query_init", "query_std", "site"),
        num_classes=1,
        image_size=(256, 256),
    ),
    Entry(
        family="xattnres",
        trainer="nnUNetTrainerXAttnResEMCAD",
        network="nnunet_attn.architectures.xattnres_emcad.XAttnResEMCAD",
        cost=Cost(27_761_787, 5.9161),
        ablation_costs={
            "replace": Cost(27_750_770, 5.9074),
            "noSkip": Cost(26_753_394, 5.7847),
            "skipOnly": Cost(26_764_411, 5.7935),
            "randomQuery": None,
            "kaimingQuery": None,
            "xavierQuery": None,
        },
        paper_cost="28.09 M, 5.76 G (thop gives the host's 5.60)",
        options=("mode", "deepest", "query_init", "query_std", "drop_path_rate"),
        pretrained_encoder="PVTv2-B2",
        num_classes=1,
        image_size=(256, 256),
    ),
    Entry(
        family="emcad",
        trainer="nnUNetTrainerEMCAD",
        network="nnunet_attn.architectures.emcad.EMCAD",
        cost=Cost(26_764_411, 5.7935),
        ablation_costs={"noAttention": Cost(26_705_168, 5.7840)},
        paper_cost="26.76 M, 5.60 G (thop)",
        options=("drop_path_rate", "attention"),
        pretrained_encoder="PVTv2-B2",
        num_classes=1,
        image_size=(256, 256),
    ),
)

# Trainers whose network is nnU-Net's own: name -> family. They are found and composed like the others.
STOCK_TRAINERS = {"nnUNetTrainerStockAdamW": "stock"}
