"""nnU-Net's trainer with a loss that has weights."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from ...arguments import spatial_values
from ...resize import resize_nearest
from ...settings import NAMES, WeightSettings
from .loss import Weighing, WeightedLoss

VARIABLE = "FASTLOGCONV_NNUNET"


class nnUNetTrainerWeightMap(nnUNetTrainer):
    """nnU-Net's trainer with a weighted cross entropy: preset "unet2019", with `bwf=10`.

    Weights are computed for each batch from its segmentation as it was augmented, on the device where it is
    trained, and taken for each output of deep supervision in its size. The spacing is that of the plans, in
    units of the shortest side of a pixel: sigmas count pixels, whatever the plans measure in.

    The environment variable FASTLOGCONV_NNUNET changes settings, `weight_map`'s, as in "bwf=20 bws=4" or
    "preset=unet2015"; with a preset, those of the trainer's name no longer count.

    Everything else is nnU-Net's: schedule, augmentation, Dice term, ignore label, regions, several GPUs.
    """

    preset = "unet2019"
    changes: dict[str, Any] = {"bwf": 10.0}  # noqa: RUF012 - to be replaced, not changed, in subclasses

    weighing: Weighing

    def _build_loss(self) -> WeightedLoss:
        stock, scales = super()._build_loss(), None
        if isinstance(stock, DeepSupervisionWrapper):
            stock, scales = stock.loss, stock.weight_factors
        manager = self.label_manager
        regions = len(manager.foreground_regions) if manager.has_regions else None
        settings = settings_of(self.preset, self.changes, self.configuration_manager.spacing)
        dims = len(self.configuration_manager.patch_size)
        spatial_values(settings.values, dims)
        labels = [] if manager.has_regions else list(manager.foreground_labels)
        self.weighing = Weighing(settings, dims, labels, regions, manager.ignore_label)
        self.print_to_log_file(f"weights of pixels: {settings}")
        return WeightedLoss(
            stock, scales, regions=regions, ignore_label=manager.ignore_label, described=repr(settings)
        )

    def train_step(self, batch: dict) -> dict:
        return super().train_step(self._weighed(batch))

    def validation_step(self, batch: dict) -> dict:
        return super().validation_step(self._weighed(batch))

    def _weighed(self, batch: dict) -> dict:
        """The batch with the target of its weights, which go to the loss beforehand."""
        given = batch["target"]
        segmentation = given[0] if isinstance(given, list) else given
        target, self.loss.weights = self.weighing(segmentation.to(self.device, non_blocking=True))
        if isinstance(given, list):
            target = resize_nearest(target, [scale.shape[2:] for scale in given])
        return batch | {"target": target}

    def get_tr_and_val_datasets(self) -> tuple:
        datasets = super().get_tr_and_val_datasets()
        if self.is_cascaded:
            identifier = datasets[0].identifiers[0]
            if datasets[0].load_case(identifier)[1].shape[0] > 1:
                raise NotImplementedError(
                    "a cascade takes the second channel of the segmentation for the previous stage: instance "
                    "ids have no place there, train 2d, 3d_fullres or 3d_lowres with them"
                )
        return datasets

    @staticmethod
    def get_training_transforms(*args, **kwargs):
        return _keep_instances(nnUNetTrainer.get_training_transforms(*args, **kwargs))

    @staticmethod
    def get_validation_transforms(*args, **kwargs):
        return _keep_instances(nnUNetTrainer.get_validation_transforms(*args, **kwargs))


class nnUNetTrainerWeightMap_unet2019(nnUNetTrainerWeightMap):
    """Preset "unet2019" as published: `bwf=50`, objects more apart and smaller."""

    changes: dict[str, Any] = {}  # noqa: RUF012


class nnUNetTrainerWeightMap_unet2015(nnUNetTrainerWeightMap):
    """Preset "unet2015": classes and background weigh the same in every image."""

    preset = "unet2015"
    changes: dict[str, Any] = {}  # noqa: RUF012


class nnUNetTrainerWeightMap_deepflash2_offline(nnUNetTrainerWeightMap):
    """Preset "deepflash2_offline", slow in volumes."""

    preset = "deepflash2_offline"
    changes: dict[str, Any] = {}  # noqa: RUF012


class _RegionsAndInstances(SegOnlyTransform):
    """nnU-Net's regions of the first channel, with the channel of instance ids, if there is one, behind."""

    def __init__(self, regions: ConvertSegmentationToRegionsTransform) -> None:
        super().__init__()
        self.regions = regions

    def _apply_to_segmentation(self, segmentation: Tensor, **params) -> Tensor:
        regions = self.regions._apply_to_segmentation(segmentation, **params)
        if segmentation.shape[0] == 1:
            return regions
        return torch.cat([regions.to(segmentation.dtype), segmentation[1:2]])


def _keep_instances(pipeline):
    pipeline.transforms = [
        _RegionsAndInstances(transform)
        if isinstance(transform, ConvertSegmentationToRegionsTransform)
        else transform
        for transform in pipeline.transforms
    ]
    return pipeline


def settings_of(preset: str, changes: dict[str, Any], spacing: Sequence[float]) -> WeightSettings:
    """The settings of a trainer, what the environment variable says, and the spacing of its plans.

    Raises:
        TypeError, ValueError: the variable says what `WeightSettings` does not take.
    """
    given = _parsed(os.environ.get(VARIABLE, ""))
    if "preset" in given:
        preset, changes = given.pop("preset"), {}
    shortest = min(spacing)
    lengths = tuple(float(f"{length / shortest:.6g}") for length in spacing)
    of_plans = {} if len(set(lengths)) == 1 else {"spacing": lengths}
    try:
        return WeightSettings.preset(preset, **of_plans | changes | given)
    except (TypeError, ValueError) as error:
        error.args = (f"{error.args[0]} ({VARIABLE}={os.environ.get(VARIABLE)!r})",)
        raise


def _parsed(text: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name not in ("preset", *NAMES):
            raise ValueError(
                f"{VARIABLE} must be settings as in 'preset=unet2015 bwf=5', without a space in any, got "
                f"{word!r}; settings are preset, {', '.join(NAMES)}"
            )
        try:
            given[name] = json.loads(value)
        except json.JSONDecodeError:
            given[name] = value  # a name
    return given
