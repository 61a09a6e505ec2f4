"""EMCAD."""

from nnunet_attn.paper_tables import TABLES
from nnunet_attn.training.base import MutationTrainer


class nnUNetTrainerEMCAD(MutationTrainer):
    """EMCAD (arXiv:2405.06880), trained by the mutation loss over the 15 subsets of its four maps.

    ``_paper``: AdamW 1e-4 with decay 1e-4 at a constant rate, 300 epochs, 0.3 cross-entropy + 0.7 Dice summed over the
    subsets, rotations (20 degrees) and flips. The betas (torch's), the probabilities of 1/2 and the clip at nnU-Net's
    12 are our choice. On plans of ``nnunet-attn plan --input-size`` an epoch is a pass over the slices, as in the
    paper. On other plans it is nnU-Net's 250 iterations: the 75,000 steps are 0.68 of the paper's on Synapse (2211
    slices, batch 6: 369 steps an epoch). Patch and batch come from the plans; the paper resizes to 224 x 224, and
    trains on colonoscopy and dermoscopy for 200 epochs at 352 x 352 and three scales.

    ``_paperPictures``: that training on pictures. 200 epochs, each batch stepped on at 0.75, 1 and 1.25 of its size,
    gradients clipped at 0.5 by value; cross-entropy and Dice with equal weights in place of the weighted BCE + IoU.

    Known differences to the released training. Its Dice loss has squared denominators, a smoothing of 1e-5 and the
    background as a class; nnU-Net's, here and in every other recipe, has plain denominators and leaves the background
    out. Half of its images are turned by multiples of 90 degrees and flipped, the others rotated by up to 20 degrees;
    here rotation and flips are drawn independently, without the turns. nnU-Net draws a third of the patches so that
    they hold foreground; that stays in every recipe of this package named after a paper, and no paper has it.
    """

    network = "nnunet_attn.architectures.emcad.EMCAD"
    paper_recipes, ablations = TABLES["nnUNetTrainerEMCAD"]
