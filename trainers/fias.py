"""FIAS (2D): DilateFormer and multi-kernel encoders, context-aware fusion, mixing attention."""

from nnunet_attn.paper_tables import TABLES
from nnunet_attn.training.base import MutationTrainer, PlanDrivenTrainer


class nnUNetTrainerFIAS(MutationTrainer):
    """FIAS with the mutation loss over its three maps; the aggregate is the prediction, and no member of the subsets.

    The plans give patch and batch size, the network has a fixed shape. The paper says that it
    starts from a pre-trained DilateFormer; that this is the published DilateFormer-Tiny, trained on ImageNet, is our
    inference. ``NNUNET_ATTN_PRETRAINED`` takes such a checkpoint; without, training is from scratch.

    ``_paper`` (arXiv:2411.10881, implementation details): Adam 1e-4 with L2 decay 1e-4, 0.4 Dice + 0.6 CE, rotation,
    zoom, shift and flips. The paper also has 256x256 images and batches of 2: patch and batch come from the plans
    here. Our choices, where it is silent: 1000 epochs of 250 iterations (it prints no number, so there is no ratio to
    give), poly rate, rotation up to 20 degrees, shifts up to a tenth of the patch, each transform with probability 1/2,
    clip at nnU-Net's own 12. Dice loss and choice of patches are nnU-Net's, see ``nnunet_attn.trainers.emcad``.
    """

    network = "nnunet_attn.architectures.fias.FIAS"
    maps = 4
    first_map = 1
    paper_recipes, ablations = TABLES["nnUNetTrainerFIAS"]


class nnUNetTrainerMixAtt(PlanDrivenTrainer):
    """FIAS's parts on the network that the plans name, 2D and 3D, with stock deep supervision.

    Our design; see ``MixAttOnPlans``. ``_paper``: see ``nnUNetTrainerFIAS``, without its mutation loss.
    """

    network = "nnunet_attn.architectures.mix_att.MixAttPlainConvUNet"
    networks = {
        "PlainConvUNet": "nnunet_attn.architectures.mix_att.MixAttPlainConvUNet",
        "ResidualEncoderUNet": "nnunet_attn.architectures.mix_att.MixAttResidualEncoderUNet",
    }
    paper_recipes, ablations = TABLES["nnUNetTrainerMixAtt"]
