"""Distance-based pixel weights for instance segmentation, on PyTorch tensors: labels in, weights out."""

from .backends import use_backend
from .dice import WeightedDiceCELoss, WeightedDiceLoss, weighted_dice_loss
from .distances import nearest_instances, signed_distance_map
from .environment import info
from .functional import distance_to_weight, lambda_kernel, region_weight_map, separable_conv2d, weight_map
from .labels import binary_to_instances, separate_touching
from .losses import WeightedCrossEntropyLoss, weighted_cross_entropy
from .masks import calculate_weights, preprocess_mask
from .plotting import plot_weight_parameters, show
from .resize import resize_nearest
from .sampling import create_pdf, random_center, random_centers
from .settings import WeightSettings
from .transforms import SeparableConv2D, UNetWeights, WeightTransform, WeightTransformSingle

__version__ = "0.1.0"

__all__ = [
    "SeparableConv2D",
    "UNetWeights",
    "WeightSettings",
    "WeightTransform",
    "WeightTransformSingle",
    "WeightedCrossEntropyLoss",
    "WeightedDiceCELoss",
    "WeightedDiceLoss",
    "binary_to_instances",
    "calculate_weights",
    "create_pdf",
    "distance_to_weight",
    "info",
    "lambda_kernel",
    "nearest_instances",
    "plot_weight_parameters",
    "preprocess_mask",
    "random_center",
    "random_centers",
    "region_weight_map",
    "resize_nearest",
    "separable_conv2d",
    "separate_touching",
    "show",
    "signed_distance_map",
    "use_backend",
    "weight_map",
    "weighted_cross_entropy",
    "weighted_dice_loss",
]
