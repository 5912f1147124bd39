"""nnU-Net v2: trainers with weighted losses, by name on nnU-Net's command line.

    pip install "fastlogconv[nnunet]"
    export nnUNet_extTrainer=$(python -m fastlogconv.integrations.nnunet)
    nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerWeightMap

nnU-Net looks for trainers that are not its own in the folders that `nnUNet_extTrainer` lists; prediction
needs the variable, too. docs/recipes.md has the rest.
"""

from __future__ import annotations

from .. import missing

try:
    import nnunetv2  # noqa: F401
except ImportError as error:
    raise missing("nnunetv2", "nnunet") from error

from .loss import Weighing, WeightedLoss
from .trainer import (
    nnUNetTrainerWeightMap,
    nnUNetTrainerWeightMap_deepflash2_offline,
    nnUNetTrainerWeightMap_unet2015,
    nnUNetTrainerWeightMap_unet2019,
)

__all__ = [
    "Weighing",
    "WeightedLoss",
    "nnUNetTrainerWeightMap",
    "nnUNetTrainerWeightMap_deepflash2_offline",
    "nnUNetTrainerWeightMap_unet2015",
    "nnUNetTrainerWeightMap_unet2019",
]
