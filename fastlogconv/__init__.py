"""Distance-based pixel weights for instance segmentation, on PyTorch tensors: labels in, weights out."""

from .backends import use_backend
from .environment import info
from .functional import distance_to_weight, lambda_kernel, region_weight_map, separable_conv2d, weight_map
from .transforms import SeparableConv2D, WeightTransform, WeightTransformSingle

__version__ = "0.1.0"

__all__ = [
    "SeparableConv2D",
    "WeightTransform",
    "WeightTransformSingle",
    "distance_to_weight",
    "info",
    "lambda_kernel",
    "region_weight_map",
    "separable_conv2d",
    "use_backend",
    "weight_map",
]
