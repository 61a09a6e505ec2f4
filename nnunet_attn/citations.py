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


# By family of the catalogue; "stock" is nnU-Net.
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
}
