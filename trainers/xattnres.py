"""XAttnRes on nnU-Net's own networks, on the paper's U-Net and on EMCAD, and the ablations of Tables 3 to 5.

``_paper``: EMCAD's recipe, which the paper says it follows strictly; see ``nnunet_attn.trainers.emcad``.

Table 4's positions are without skip connections (its "None" is Table 3's "no skip"), so ours are, too; Table 5's
initialisations are with them.
"""

from nnunet_attn.trainers.emcad import PAPER, nnUNetTrainerEMCAD
from nnunet_attn.training.base import AttnTrainer, PlanDrivenTrainer


class nnUNetTrainerXAttnRes(PlanDrivenTrainer):
    """XAttnRes on the network that the plans name, PlainConvUNet or ResidualEncoderUNet, 2D and 3D."""

    network = "nnunet_attn.architectures.xattnres.XAttnResPlainConvUNet"
    networks = {
        "PlainConvUNet": "nnunet_attn.architectures.xattnres.XAttnResPlainConvUNet",
        "ResidualEncoderUNet": "nnunet_attn.architectures.xattnres.XAttnResResidualEncoderUNet",
    }
    paper_recipes = {"paper": PAPER}


class nnUNetTrainerXAttnResUNet(AttnTrainer):
    """The paper's U-Net with XAttnRes (arXiv:2604.03297)."""

    network = "nnunet_attn.architectures.xattnres.XAttnResUNet"
    paper_recipes = {"paper": PAPER}


class nnUNetTrainerXAttnResEMCAD(nnUNetTrainerEMCAD):
    """EMCAD with XAttnRes in its decoder (arXiv:2604.03297)."""

    network = "nnunet_attn.architectures.xattnres.XAttnResEMCAD"


class nnUNetTrainerXAttnRes_replace(nnUNetTrainerXAttnRes):
    """Table 3, XAttnRes in place of the skip connections."""

    network_kwargs = {"mode": "replace"}


class nnUNetTrainerXAttnRes_noSkip(nnUNetTrainerXAttnRes):
    """Table 3, neither skip connections nor XAttnRes."""

    network_kwargs = {"mode": "none"}


class nnUNetTrainerXAttnRes_skipOnly(nnUNetTrainerXAttnRes):
    """Table 3, the host."""

    network_kwargs = {"mode": "skip"}


class nnUNetTrainerXAttnRes_encoderOnly(nnUNetTrainerXAttnRes):
    """Table 4, in the encoder only, without skip connections."""

    network_kwargs = {"mode": "replace", "position": "encoder"}


class nnUNetTrainerXAttnRes_decoderOnly(nnUNetTrainerXAttnRes):
    """Table 4, in the decoder only, without skip connections."""

    network_kwargs = {"mode": "replace", "position": "decoder"}


class nnUNetTrainerXAttnRes_randomQuery(nnUNetTrainerXAttnRes):
    """Table 5, normal queries."""

    network_kwargs = {"query_init": "random"}


class nnUNetTrainerXAttnRes_kaimingQuery(nnUNetTrainerXAttnRes):
    """Table 5, Kaiming-uniform queries."""

    network_kwargs = {"query_init": "kaiming"}


class nnUNetTrainerXAttnRes_xavierQuery(nnUNetTrainerXAttnRes):
    """Table 5, Xavier-uniform queries."""

    network_kwargs = {"query_init": "xavier"}


class nnUNetTrainerXAttnResUNet_replace(nnUNetTrainerXAttnResUNet):
    """Table 3, XAttnRes in place of the skip connections."""

    network_kwargs = {"mode": "replace"}


class nnUNetTrainerXAttnResUNet_noSkip(nnUNetTrainerXAttnResUNet):
    """Table 3, neither skip connections nor XAttnRes."""

    network_kwargs = {"mode": "none"}


class nnUNetTrainerXAttnResUNet_skipOnly(nnUNetTrainerXAttnResUNet):
    """Table 3, the host."""

    network_kwargs = {"mode": "skip"}


class nnUNetTrainerXAttnResUNet_encoderOnly(nnUNetTrainerXAttnResUNet):
    """Table 4, in the encoder only, without skip connections."""

    network_kwargs = {"mode": "replace", "position": "encoder"}


class nnUNetTrainerXAttnResUNet_decoderOnly(nnUNetTrainerXAttnResUNet):
    """Table 4, in the decoder only, without skip connections."""

    network_kwargs = {"mode": "replace", "position": "decoder"}


class nnUNetTrainerXAttnResUNet_randomQuery(nnUNetTrainerXAttnResUNet):
    """Table 5, normal queries."""

    network_kwargs = {"query_init": "random"}


class nnUNetTrainerXAttnResUNet_kaimingQuery(nnUNetTrainerXAttnResUNet):
    """Table 5, Kaiming-uniform queries."""

    network_kwargs = {"query_init": "kaiming"}


class nnUNetTrainerXAttnResUNet_xavierQuery(nnUNetTrainerXAttnResUNet):
    """Table 5, Xavier-uniform queries."""

    network_kwargs = {"query_init": "xavier"}


class nnUNetTrainerXAttnResUNet_concatSite(nnUNetTrainerXAttnResUNet):
    """XAttnRes on the concatenation with the skip; nearest to the published parameter count."""

    network_kwargs = {"site": "concat"}


class nnUNetTrainerXAttnResEMCAD_replace(nnUNetTrainerXAttnResEMCAD):
    """Table 3, XAttnRes in place of the skip connections."""

    network_kwargs = {"mode": "replace"}


class nnUNetTrainerXAttnResEMCAD_noSkip(nnUNetTrainerXAttnResEMCAD):
    """Table 3, neither skip connections nor XAttnRes."""

    network_kwargs = {"mode": "none"}


class nnUNetTrainerXAttnResEMCAD_skipOnly(nnUNetTrainerXAttnResEMCAD):
    """Table 3, the host."""

    network_kwargs = {"mode": "skip"}


class nnUNetTrainerXAttnResEMCAD_randomQuery(nnUNetTrainerXAttnResEMCAD):
    """Table 5, normal queries."""

    network_kwargs = {"query_init": "random"}


class nnUNetTrainerXAttnResEMCAD_kaimingQuery(nnUNetTrainerXAttnResEMCAD):
    """Table 5, Kaiming-uniform queries."""

    network_kwargs = {"query_init": "kaiming"}


class nnUNetTrainerXAttnResEMCAD_xavierQuery(nnUNetTrainerXAttnResEMCAD):
    """Table 5, Xavier-uniform queries."""

    network_kwargs = {"query_init": "xavier"}
