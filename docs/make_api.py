"""The page of the API, written by the build from what the packages list as public."""

from pathlib import Path

from nnunet_attn import api, architectures, blocks

SECTIONS = {
    "Your own network": (api, "`from nnunet_attn.api import NAME`; see the page about your network."),
    "Blocks": (blocks, "`from nnunet_attn.blocks import NAME`; tensors in, tensors out."),
    "Networks": (architectures, "`from nnunet_attn.architectures import NAME`; images in, logits out, no softmax."),
}
FUNCTIONS = {
    "Metrics": ("nnunet_attn.scoring.metrics", ("dice", "iou", "hd95", "nsd", "surface_distances")),
    "Statistics": (
        "nnunet_attn.comparison.statistics",
        ("paired_difference", "wilcoxon_p", "holm", "is_significant", "smallest_p"),
    ),
    "Intervals": ("nnunet_attn.scoring.intervals", ("mean_interval", "difference_interval", "group_index")),
    "Counts": ("nnunet_attn.complexity", ("gmacs", "saved_bytes")),
    "Losses": ("nnunet_attn.training.losses", ("MutationLoss",)),
}


def write(path: Path) -> None:
    """Write the page."""
    lines = [
        "API",
        "===",
        "",
        "What other code may use. Importing ``nnunet_attn`` does not import torch or nnU-Net.",
        "",
    ]
    for title, (package, text) in SECTIONS.items():
        lines += [title, "-" * len(title), "", text.replace("`", "``"), ""]
        for name in sorted(package.__all__, key=str.lower):
            lines += [f".. autoclass:: {package.__name__}.{name}", ""]
    for title, (module, names) in FUNCTIONS.items():
        lines += [title, "-" * len(title), ""]
        for name in names:
            kind = "class" if name[0].isupper() else "function"
            lines += [f".. auto{kind}:: {module}.{name}", ""]
    text = "\n".join(lines)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
