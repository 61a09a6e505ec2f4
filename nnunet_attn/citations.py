"""What to cite: nnU-Net and the paper of each family, as text and BibTeX. Standard library only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """One paper. ``where`` are further BibTeX fields, ``authors`` are "family, given"."""

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    kind: str
    where: dict[str, str]

    @property
    def short(self) -> str:
        """As in running text: "Liu et al., 2025"."""
        names = [author.split(",")[0] for author in self.authors]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        return f"{who}, {self.year}"

    @property
    def bibtex(self) -> str:
        """The entry."""
        fields = {"title": f"{{{self.title}}}", "author": " and ".join(self.authors), "year": str(self.year)}
        lines = (f"  {name} = {{{value}}}," for name, value in (fields | self.where).items())
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])


def _arxiv(number: str) -> dict[str, str]:
    return {"eprint": number, "archivePrefix": "arXiv"}


_UNET_PLUS_PLUS = Citation(
    "zhou2018unetplusplus",
    "UNet++: A Nested U-Net Architecture for Medical Image Segmentation",
    ("Zhou, Zongwei", "Rahman Siddiquee, Md Mahfuzur", "Tajbakhsh, Nima", "Liang, Jianming"),
    2018,
    "inproceedings",
    {"booktitle": "DLMIA"} | _arxiv("1807.10165"),
)

# By family of the catalogue, "stock" being nnU-Net, and by trainer of a library's network.
CITATIONS = {
    "stock": Citation(
        "isensee2021nnunet",
        "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
        ("Isensee, Fabian", "Jaeger, Paul F.", "Kohl, Simon A. A.", "Petersen, Jens", "Maier-Hein, Klaus H."),
        2021,
        "article",
        {"journal": "Nature Methods", "volume": "18", "pages": "203--211", "doi": "10.1038/s41592-020-01008-z"},
    ),
    "dcau_net": Citation(
        "li2026dcaunet",
        "DCAU-Net: Differential Cross Attention and Channel-Spatial Feature Fusion for Medical Image Segmentation",
        ("Li, Y.", "Wan, H.", "Lan, L."),
        2026,
        "misc",
        _arxiv("2603.09530"),
    ),
    "dual_cross_attention": Citation(
        "ates2023dual",
        "Dual Cross-Attention for Medical Image Segmentation",
        ("Ates, Gorkem Can", "Mohan, Prasoon", "Celik, Emrah"),
        2023,
        "article",
        {"journal": "Engineering Applications of Artificial Intelligence", "volume": "126"} | _arxiv("2303.17696"),
    ),
    "xattnres": Citation(
        "liu2026xattnres",
        "XAttnRes: Cross-Stage Attention Residuals for Medical Image Segmentation",
        ("Liu, Xinyu", "Xu, Qing", "Chen, Zhen"),
        2026,
        "misc",
        _arxiv("2604.03297"),
    ),
    "fias": Citation(
        "liu2025fias",
        "FIAS: Feature Imbalance-Aware Medical Image Segmentation with Dynamic Fusion and Mixing Attention",
        ("Liu, Xiwei", "Xu, Min", "Ho, Qirong"),
        2025,
        "inproceedings",
        {"booktitle": "ISBI"} | _arxiv("2411.10881"),
    ),
    "emcad": Citation(
        "rahman2024emcad",
        "EMCAD: Efficient Multi-scale Convolutional Attention Decoding for Medical Image Segmentation",
        ("Rahman, Md Mostafijur", "Munir, Mustafa", "Marculescu, Radu"),
        2024,
        "inproceedings",
        {"booktitle": "CVPR"} | _arxiv("2405.06880"),
    ),
    "nnUNetTrainerMONAIAttentionUNet": Citation(
        "oktay2018attention",
        "Attention U-Net: Learning Where to Look for the Pancreas",
        ("Oktay, Ozan", "Schlemper, Jo", "Le Folgoc, Loic", "others"),
        2018,
        "misc",
        _arxiv("1804.03999"),
    ),
    "nnUNetTrainerMONAIUNetPlusPlus": _UNET_PLUS_PLUS,
    "nnUNetTrainerMONAIUNETR": Citation(
        "hatamizadeh2022unetr",
        "UNETR: Transformers for 3D Medical Image Segmentation",
        ("Hatamizadeh, Ali", "Tang, Yucheng", "Nath, Vishwesh", "others"),
        2022,
        "inproceedings",
        {"booktitle": "WACV"} | _arxiv("2103.10504"),
    ),
    "nnUNetTrainerMONAISwinUNETR": Citation(
        "hatamizadeh2022swin",
        "Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI Images",
        ("Hatamizadeh, Ali", "Nath, Vishwesh", "Tang, Yucheng", "others"),
        2022,
        "inproceedings",
        {"booktitle": "BrainLes 2021"} | _arxiv("2201.01266"),
    ),
    "nnUNetTrainerMONAISegResNet": Citation(
        "myronenko2019segresnet",
        "3D MRI Brain Tumor Segmentation Using Autoencoder Regularization",
        ("Myronenko, Andriy",),
        2019,
        "inproceedings",
        {"booktitle": "BrainLes 2018"} | _arxiv("1810.11654"),
    ),
    "nnUNetTrainerMONAIMedNeXt": Citation(
        "roy2023mednext",
        "MedNeXt: Transformer-driven Scaling of ConvNets for Medical Image Segmentation",
        ("Roy, Saikat", "Koehler, Gregor", "Ulrich, Constantin", "others"),
        2023,
        "inproceedings",
        {"booktitle": "MICCAI"} | _arxiv("2303.09975"),
    ),
    "nnUNetTrainerSMPUNet": Citation(
        "ronneberger2015unet",
        "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        ("Ronneberger, Olaf", "Fischer, Philipp", "Brox, Thomas"),
        2015,
        "inproceedings",
        {"booktitle": "MICCAI"} | _arxiv("1505.04597"),
    ),
    "nnUNetTrainerSMPUNetPlusPlus": _UNET_PLUS_PLUS,
    "nnUNetTrainerSMPDeepLabV3Plus": Citation(
        "chen2018deeplabv3plus",
        "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
        ("Chen, Liang-Chieh", "Zhu, Yukun", "Papandreou, George", "Schroff, Florian", "Adam, Hartwig"),
        2018,
        "inproceedings",
        {"booktitle": "ECCV"} | _arxiv("1802.02611"),
    ),
    "nnUNetTrainerSMPSegFormer": Citation(
        "xie2021segformer",
        "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
        ("Xie, Enze", "Wang, Wenhai", "Yu, Zhiding", "others"),
        2021,
        "inproceedings",
        {"booktitle": "NeurIPS"} | _arxiv("2105.15203"),
    ),
    "nnUNetTrainerSMPUPerNet": Citation(
        "xiao2018upernet",
        "Unified Perceptual Parsing for Scene Understanding",
        ("Xiao, Tete", "Liu, Yingcheng", "Zhou, Bolei", "Jiang, Yuning", "Sun, Jian"),
        2018,
        "inproceedings",
        {"booktitle": "ECCV"} | _arxiv("1807.10221"),
    ),
}
