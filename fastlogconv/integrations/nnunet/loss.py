"""Target and weights of nnU-Net's segmentations, and its loss with them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...functional import weight_map
from ...labels import binary_to_instances, separate_touching
from ...losses import weighted_cross_entropy
from ...resize import resize_nearest
from ...settings import WeightSettings


class Weighing:
    """From the segmentation of a batch, as augmented, to its target and the weights of its pixels.

    Where the segmentation has a channel of instance ids behind those of nnU-Net, these are the instances.
    Else they are the connected components of each foreground label, or of each region: those that meet at
    corners are one, so that gaps take nothing away from the target.

    Labels are one classification: border terms are found within each of them. Regions are several, for they
    overlap: each has target and weights of its own. Ignored pixels belong to no instance and weigh 0.

    Args:
        settings: those of the weights.
        spatial_dims: 2 or 3.
        labels: the foreground labels.
        regions: the number of regions, channels of the segmentation; None: its first channel holds labels.
        ignore_label: what nnU-Net's label manager has; with regions the channel behind them is True there.

    Shape:
        segmentation [B, C, ...] -> target as nnU-Net's losses take it, [B, 1, ...] of labels or [B, regions,
        ...] bool with a channel of ignored pixels behind, and weights [B, 1 or regions, ...] float32.
    """

    def __init__(
        self,
        settings: WeightSettings,
        spatial_dims: int,
        labels: list[int],
        regions: int | None = None,
        ignore_label: int | None = None,
    ) -> None:
        self.settings, self.spatial_dims = settings, spatial_dims
        self.labels, self.regions, self.ignore_label = labels, regions, ignore_label

    @torch.no_grad()
    def __call__(self, segmentation: Tensor) -> tuple[Tensor, Tensor]:
        of_nnunet = 1 if self.regions is None else self.regions + (self.ignore_label is not None)
        channels = segmentation.shape[1]
        if channels not in (of_nnunet, of_nnunet + 1):
            raise ValueError(
                f"the segmentation must have the channels that nnU-Net gives it, {of_nnunet}, and perhaps "
                f"one of instance ids, got {channels}"
            )
        ids = segmentation[:, -1] if channels > of_nnunet else None
        return (self._of_labels if self.regions is None else self._of_regions)(segmentation, ids)

    def _of_labels(self, segmentation: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        classes = segmentation[:, 0]
        ignore = None if self.ignore_label is None else classes == self.ignore_label
        if ids is None:
            instances = sum(
                self._components(classes == label) for label in self.labels
            )  # they do not overlap
        else:
            foreground = classes > 0 if ignore is None else (classes > 0) & ~ignore
            instances = ids.masked_fill(~foreground, 0)
        kinds = classes if len(self.labels) > 1 else None
        target = classes.masked_fill(self._gaps(instances, kinds), 0)
        return target[:, None], self._weights(instances, kinds, ignore)[:, None]

    def _of_regions(self, segmentation: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        masks = segmentation[:, : self.regions] > 0
        ignored = None if self.ignore_label is None else segmentation[:, self.regions, None] > 0
        inside = masks if ignored is None else masks & ~ignored
        shape, inside = inside.shape, inside.flatten(0, 1)  # each region of each image by itself
        if ids is None:
            instances = self._components(inside)
        else:
            instances = ids[:, None].expand(shape).flatten(0, 1).masked_fill(~inside, 0)
        ignore = None if ignored is None else ignored.expand(shape).flatten(0, 1)
        target = masks & ~self._gaps(instances, None).view(shape)
        target = target if ignored is None else torch.cat([target, ignored], dim=1)
        return target, self._weights(instances, None, ignore).view(shape)

    def _components(self, masks: Tensor) -> Tensor:
        dims = self.spatial_dims
        return binary_to_instances(masks, connectivity=dims, spatial_dims=dims)

    def _gaps(self, instances: Tensor, classes: Tensor | None) -> Tensor:
        if not self.settings.gaps:
            return torch.zeros_like(instances, dtype=torch.bool)
        return (separate_touching(instances, classes, spatial_dims=self.spatial_dims) == 0) & (instances > 0)

    def _weights(self, instances: Tensor, classes: Tensor | None, ignore: Tensor | None) -> Tensor:
        return weight_map(
            instances, classes=classes, ignore=ignore, settings=self.settings, spatial_dims=self.spatial_dims
        )


class WeightedLoss(nn.Module):
    """nnU-Net's loss with a weighted cross entropy; its Dice term stays as it is.

    With weights of 1 it is nnU-Net's own. The Dice term is that of `stock`, gathered over processes and
    compiled as it is there, with the gaps in its target.

    nnU-Net calls a loss with outputs and target alone: whoever calls this one sets `weights` before.

    Args:
        stock: what nnU-Net's trainer builds, `DC_and_CE_loss` or, with regions, `DC_and_BCE_loss`.
        scales: the factor of each output of deep supervision; None: there is one output.
        regions, ignore_label: as for `Weighing`.
        described: what weights these are, for nnU-Net's debug.json.
    """

    weights: Tensor | None = None  # [B, 1 or regions, ...], of the next call

    def __init__(
        self,
        stock: nn.Module,
        scales: tuple[float, ...] | None = None,
        *,
        regions: int | None = None,
        ignore_label: int | None = None,
        described: str = "",
    ) -> None:
        super().__init__()
        self.stock, self.scales = stock, scales
        self.regions, self.ignore_label, self.described = regions, ignore_label, described

    def forward(self, outputs: Tensor | list[Tensor], targets: Tensor | list[Tensor]) -> Tensor:
        weights, self.weights = self.weights, None
        if weights is None:
            raise RuntimeError(
                "the loss has no weights for this batch: set its `weights` before each call, as train_step "
                "and validation_step of nnUNetTrainerWeightMap do"
            )
        if self.scales is None:
            return self._of_scale(outputs, targets, weights)
        counted = [place for place, factor in enumerate(self.scales) if factor != 0]
        resized = resize_nearest(weights, [outputs[place] for place in counted])
        return sum(
            self.scales[place] * self._of_scale(outputs[place], targets[place], weight)
            for place, weight in zip(counted, resized, strict=True)
        )

    def _of_scale(self, output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        of_output = self._of_labels if self.regions is None else self._of_regions
        cross_entropy, dice = of_output(output, target, weights)
        return self.stock.weight_ce * cross_entropy + self.stock.weight_dice * dice

    def _of_labels(self, output: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        known = None
        if self.ignore_label is not None:
            known = target != self.ignore_label
            target = target.masked_fill(~known, 0)
            weights = weights * known
        cross_entropy = weighted_cross_entropy(output, target.long(), weights)
        return cross_entropy, self.stock.dc(output, target, loss_mask=known)

    def _of_regions(self, output: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        regions, known = target[:, : self.regions], None
        share: int | Tensor = regions.numel()
        if self.ignore_label is not None:
            known = ~target[:, self.regions :].bool()
            weights = weights * known
            share = known.sum().clamp(min=1)  # nnU-Net's: each pixel once, whatever the number of regions
        each = F.binary_cross_entropy_with_logits(output.float(), regions.float(), reduction="none")
        return (weights * each).sum() / share, self.stock.dc(output, regions, loss_mask=known)

    def extra_repr(self) -> str:
        return self.described
