from .dcau_net import DCAUNet as DCAUNet
from .diff_ca import (
    DiffCAPlainConvUNet as DiffCAPlainConvUNet,
    DiffCAResidualEncoderUNet as DiffCAResidualEncoderUNet,
)
from .dilateformer import DilateFormer as DilateFormer
from .dual_cross_attention_unets import (
    DualCADoubleUNet as DualCADoubleUNet,
    DualCAMultiResUNet as DualCAMultiResUNet,
    DualCAPlainConvUNet as DualCAPlainConvUNet,
    DualCAR2UNet as DualCAR2UNet,
    DualCAResidualEncoderUNet as DualCAResidualEncoderUNet,
    DualCAResUNetPlusPlus as DualCAResUNetPlusPlus,
    DualCAUNet as DualCAUNet,
    DualCAVNet as DualCAVNet,
)
from .emcad import EMCAD as EMCAD
from .fias import FIAS as FIAS
from .hosts.double_unet import DoubleUNet as DoubleUNet
from .hosts.multi_res_unet import MultiResUNet as MultiResUNet
from .hosts.r2_unet import R2UNet as R2UNet
from .hosts.res_unet_pp import ResUNetPlusPlus as ResUNetPlusPlus
from .hosts.unet import UNet as UNet
from .hosts.vnet import VNet as VNet
from .mix_att import (
    MixAttPlainConvUNet as MixAttPlainConvUNet,
    MixAttResidualEncoderUNet as MixAttResidualEncoderUNet,
)
from .xattnres import (
    XAttnResPlainConvUNet as XAttnResPlainConvUNet,
    XAttnResResidualEncoderUNet as XAttnResResidualEncoderUNet,
    XAttnResUNet as XAttnResUNet,
)
from .xattnres_emcad import XAttnResEMCAD as XAttnResEMCAD
