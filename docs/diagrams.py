"""Figures of the networks, drawn by the build: boxes in a grid and arrows between them."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

COLOURS = {"plain": "#eef1f5", "ours": "#d6e8fb", "attention": "#fde3c8", "out": "#dff2df"}
WIDTH, HEIGHT = 1.78, 0.66

Box = tuple[str, float, float, str, str]  # name, column, row, text, kind
Arrow = tuple[str, str]


def draw(path: Path, boxes: Sequence[Box], arrows: Sequence[Arrow]) -> None:
    """Write a figure; columns go right, rows go down."""
    columns, rows = [b[1] for b in boxes], [b[2] for b in boxes]
    width, height = 2.1 * (max(columns) + 1), 1.05 * (max(rows) + 1)
    figure, axes = plt.subplots(figsize=(0.68 * width, 0.68 * height + 0.1))
    centres = {}
    for name, column, row, text, kind in boxes:
        x, y = 2.1 * column, -1.05 * row
        centres[name] = (x, y)
        axes.add_patch(FancyBboxPatch(
            (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor=COLOURS[kind], edgecolor="#5b6673", linewidth=0.8,
        ))  # fmt: skip
        axes.text(x, y, text, ha="center", va="center", fontsize=6.3, linespacing=1.15)
    for start, end in arrows:
        (x0, y0), (x1, y1) = centres[start], centres[end]
        dx, dy = x1 - x0, y1 - y0
        if abs(dx) < 0.2:  # straight down or up
            tail, head = (
                (x0, y0 + (HEIGHT / 2 + 0.03) * (1 if dy > 0 else -1)),
                (x1, y1 - (HEIGHT / 2 + 0.03) * (1 if dy > 0 else -1)),
            )
        else:
            side = 1 if dx > 0 else -1
            tail, head = (x0 + side * (WIDTH / 2 + 0.03), y0), (x1 - side * (WIDTH / 2 + 0.03), y1)
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": "#5b6673", "linewidth": 0.8,
                                                  "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
    axes.set(xlim=(-1.05, 2.1 * max(columns) + 1.05), ylim=(-1.05 * max(rows) - 0.5, 0.5))
    axes.set_aspect("equal")
    axes.axis("off")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def dcau_net(path: Path) -> None:
    stages = [("3 DCA blocks", "64"), ("4 DCA blocks", "128"), ("8 DCA blocks", "256"), ("3 DCA blocks", "512")]
    boxes: list[Box] = [("image", 0, 0, "image", "plain")]
    arrows: list[Arrow] = [("image", "e0")]
    for i, (text, width) in enumerate(stages):
        boxes.append((f"e{i}", 1, i, f"{text}\n{width} at 1/{4 * 2**i}", "attention"))
        if i < 3:
            boxes.append((f"f{i}", 2, i, f"CSFF\n{width} at 1/{4 * 2**i}", "ours"))
            arrows += [(f"e{i}", f"e{i + 1}"), (f"e{i}", f"f{i}")]
    boxes += [("up", 2, 3, "1x1 CBR,\nresize", "plain"), ("head", 3, 0, "resize to image,\n3x3 CBR, head", "plain"),
              ("logits", 4, 0, "logits", "out")]  # fmt: skip
    arrows += [("e3", "up"), ("up", "f2"), ("f2", "f1"), ("f1", "f0"), ("f0", "head"), ("head", "logits")]
    draw(path, boxes, arrows)


def dual_cross_attention(path: Path) -> None:
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    for i in range(4):
        boxes += [(f"s{i}", 0, i, f"skip {i + 1}\n1/{2**i}", "plain"),
                  (f"t{i}", 1, i, f"mean of {8 >> i} x {8 >> i}\nper token", "plain"),
                  (f"o{i}", 4, i, "up, 1x1, + skip,\nnorm, ReLU", "plain"),
                  (f"d{i}", 5, i, f"decoder\n1/{2**i}", "out")]  # fmt: skip
        arrows += [(f"s{i}", f"t{i}"), (f"t{i}", "cca"), ("sca", f"o{i}"), (f"o{i}", f"d{i}")]
    boxes += [("cca", 2, 1.5, "CCA: channels of\na level ask all", "attention"),
              ("sca", 3, 1.5, "SCA: positions,\nvalues per level", "attention")]  # fmt: skip
    draw(path, boxes, [*arrows, ("cca", "sca")])


def xattnres(path: Path) -> None:
    boxes: list[Box] = [
        ("h", 0, 0, "history: outputs\nof all stages so far", "plain"),
        ("x", 0, 1, "x: input of\nthe stage", "plain"),
        ("p", 1, 0, "pool or enlarge,\n1x1 if widths differ", "plain"),
        ("l", 2, 0, "logits: one query,\nnormalised values", "attention"),
        ("a", 3, 0, "softmax over\nentries, per pixel", "attention"),
        ("m", 4, 1, "weighted mean\nof all values", "ours"),
        ("s", 5, 1, "stage", "plain"),
        ("o", 5, 0, "output joins\nthe history", "out"),
    ]
    draw(path, boxes, [("h", "p"), ("x", "l"), ("p", "l"), ("l", "a"), ("a", "m"), ("x", "m"), ("m", "s"), ("s", "o")])


def emcad(path: Path) -> None:
    boxes: list[Box] = [("image", 0, 0, "image", "plain")]
    arrows: list[Arrow] = [("image", "e0")]
    for i, width in enumerate((64, 128, 320, 512)):
        boxes += [(f"e{i}", 1, i, f"PVTv2-B2\n{width} at 1/{4 * 2**i}", "plain"),
                  (f"m{i}", 3, i, f"MSCAM\n{width}", "attention"),
                  (f"p{i}", 4, i, f"head, resize\np{i + 1}", "out")]  # fmt: skip
        arrows.append((f"m{i}", f"p{i}"))
        if i < 3:
            boxes.append((f"g{i}", 2, i, "LGAG, + EUCB of\nstage below", "ours"))
            arrows += [(f"e{i}", f"e{i + 1}"), (f"e{i}", f"g{i}"), (f"g{i}", f"m{i}"), (f"m{i + 1}", f"m{i}")]
    draw(path, boxes, [*arrows, ("e3", "m3")])


def fias(path: Path) -> None:
    boxes: list[Box] = [("image", 0, 0.4, "image", "plain")]
    arrows: list[Arrow] = [("image", "t0"), ("image", "k0")]
    for i, width in enumerate((72, 144, 288, 576)):
        kind = "dilated" if i < 2 else "global"
        boxes += [(f"t{i}", 1, 2 * i * 0.8, f"{kind} attention\n{width} at 1/{4 * 2**i}", "attention"),
                  (f"k{i}", 1, (2 * i + 1) * 0.8, f"multi-kernel conv.\n{width} at 1/{4 * 2**i}", "plain"),
                  (f"c{i}", 2, (2 * i + 0.5) * 0.8, "context-aware\nfusion", "ours"),
                  (f"m{i}", 3, (2 * i + 0.5) * 0.8, "mixing-attention\nblock", "attention")]  # fmt: skip
        arrows += [(f"t{i}", f"c{i}"), (f"k{i}", f"c{i}"), (f"c{i}", f"m{i}")]
        if i < 3:
            boxes.append((f"h{i}", 4, (2 * i + 0.5) * 0.8, "head, resize\nto image", "plain"))
            arrows += [(f"m{i + 1}", f"m{i}"), (f"m{i}", f"h{i}"), (f"h{i}", "sum")]
    boxes.append(("sum", 5, 2, "sum: logits", "out"))
    draw(path, boxes, arrows)


def diff_ca(path: Path) -> None:
    boxes: list[Box] = [("image", 0, 0, "image", "plain")]
    arrows: list[Arrow] = [("image", "s0")]
    for i, stride in enumerate((1, 2, 4, 8, 16)):
        ours = stride >= 4
        boxes.append((f"s{i}", 1, i, f"host's stage\n1/{stride}", "plain"))
        if ours:
            boxes.append((f"a{i}", 2, i, "DCA block", "attention"))
            arrows.append((f"s{i}", f"a{i}"))
        here = f"a{i}" if ours else f"s{i}"
        if i < 4:
            join = "CSFF\nin place of concat." if ours else "concatenation"
            boxes += [(f"j{i}", 3, i, join, "ours" if ours else "plain"),
                      (f"d{i}", 4, i, f"host's stage\n1/{stride}", "plain"),
                      (f"h{i}", 5, i, "head", "out")]  # fmt: skip
            arrows += [(here, f"j{i}"), (f"j{i}", f"d{i}"), (f"d{i}", f"h{i}"), (here, f"s{i + 1}")]
            arrows.append((f"d{i + 1}" if i < 3 else "a4", f"j{i}"))
    draw(path, boxes, arrows)


def mix_att(path: Path) -> None:
    boxes: list[Box] = [("image", 0, 0, "image", "plain")]
    arrows: list[Arrow] = [("image", "s0"), ("image", "p2")]
    more, mixing = "\n+ g DMK", "\n+ g MixAtt"
    for i, stride in enumerate((1, 2, 4, 8, 16)):
        ours = stride >= 4
        boxes.append((f"s{i}", 2, i, f"host's stage 1/{stride}{more if ours else ''}", "plain"))
        if i < 4:
            arrows.append((f"s{i}", f"s{i + 1}"))
            boxes += [(f"d{i}", 4, i, f"host's stage 1/{stride}{mixing if ours else ''}",
                       "attention" if ours else "plain"), (f"h{i}", 5, i, "head", "out")]  # fmt: skip
            arrows.append((f"d{i}", f"h{i}"))
            arrows.append((f"d{i + 1}" if i < 3 else "f4", f"d{i}"))
        if ours:
            kind = "dilated" if stride == 4 else "global"
            boxes += [(f"p{i}", 1, i, f"{kind} attention\n1/{stride}", "attention"),
                      (f"f{i}", 3, i, "+ g CAF", "ours")]  # fmt: skip
            arrows += [(f"s{i}", f"f{i}"), (f"p{i}", f"f{i}")]
            if i < 4:
                arrows += [(f"p{i}", f"p{i + 1}"), (f"f{i}", f"d{i}")]
        else:
            arrows.append((f"s{i}", f"d{i}"))
    draw(path, boxes, arrows)


def draw_all(folder: Path) -> None:
    """Write ``NAME.svg`` of every network's figure into ``folder``."""
    folder.mkdir(exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "nnunet_attn", "svg.fonttype": "path"}):
        for function in (dcau_net, dual_cross_attention, xattnres, emcad, fias, diff_ca, mix_att):
            function(folder / f"{function.__name__}.svg")
