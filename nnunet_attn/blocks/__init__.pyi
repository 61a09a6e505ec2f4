from .channel_spatial_fusion import (
    ChannelAttention as ChannelAttention,
    ChannelSpatialFusion as ChannelSpatialFusion,
    ConcatFusion as ConcatFusion,
    SpatialAttention as SpatialAttention,
)
from .context_aware_fusion import ContextAwareFusion as ContextAwareFusion
from .conv import ConvNormAct as ConvNormAct
from .cross_attention import (
    ChannelCrossAttention as ChannelCrossAttention,
    SpatialCrossAttention as SpatialCrossAttention,
)
from .cross_stage_attention import CrossStageAttentionResidual as CrossStageAttentionResidual
from .dca_block import DCABlock as DCABlock
from .depthwise_multi_kernel import (
    DepthwiseMultiKernel as DepthwiseMultiKernel,
    DepthwiseMultiKernelEncoder as DepthwiseMultiKernelEncoder,
)
from .differential_cross_attention import (
    DifferentialCrossAttention as DifferentialCrossAttention,
    WindowCrossAttention as WindowCrossAttention,
)
from .dilated_attention import MultiScaleDilatedAttention as MultiScaleDilatedAttention
from .dilated_block import DilatedBlock as DilatedBlock
from .dual_cross_attention import DualCrossAttention as DualCrossAttention
from .feature_history import FeatureHistory as FeatureHistory
from .global_attention import GlobalAttention as GlobalAttention
from .mixing_attention import MixingAttention as MixingAttention, MonteCarloAttention as MonteCarloAttention
from .multi_scale_conv_attention import CAB as CAB, EUCB as EUCB, LGAG as LGAG, MSCAM as MSCAM, MSCB as MSCB, SAB as SAB
