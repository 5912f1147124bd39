"""deepflash2's transforms as modules: they hold settings and call `functional`."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

from torch import Tensor, nn

from . import checks, functional
from .arguments import spatial_values
from .rules import BalanceName, BorderName, DistanceName, FalloffName
from .settings import NAMES, PresetName, WeightSettings


class _Weights(nn.Module):
    """Settings of `weight_map` under deepflash2's names and real-time defaults."""

    # Each to read and to change: `_attribute`.
    distance: DistanceName
    border: BorderName
    falloff: FalloffName
    balance: BalanceName
    border_everywhere: bool
    gaps: bool
    bws: float
    fds: float
    bwf: float
    fbr: float
    lmbda: float
    ks: int | None
    spacing: tuple[float, ...] | None

    def __init__(
        self,
        channels: int | None = None,
        bws: float | None = None,
        fds: float = 10,
        bwf: float | None = None,
        fbr: float = 0.1,
        lmbda: float = 0.35,
        ks: int | None = 73,
        *,
        preset: PresetName = "deepflash2",
        distance: DistanceName | None = None,
        border: BorderName | None = None,
        falloff: FalloffName | None = None,
        balance: BalanceName | None = None,
        border_everywhere: bool = False,
        gaps: bool | None = None,
        spacing: tuple[float, ...] | None = None,
        spatial_dims: int = 2,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.channels = _check_channels(channels)
        named = dict(
            distance=distance, border=border, falloff=falloff, balance=balance, gaps=gaps, bws=bws, bwf=bwf
        )
        named = {name: value for name, value in named.items() if value is not None}  # None: the preset's
        others = dict(
            border_everywhere=border_everywhere, fds=fds, fbr=fbr, lmbda=lmbda, ks=ks, spacing=spacing
        )
        self.settings = WeightSettings.preset(preset, **{**others, **named})
        checks.check_spatial_dims(spatial_dims)
        self.spatial_dims = spatial_dims
        self._check_settings()
        checks.check_backend(backend)
        self.backend = backend

    def _check_settings(self) -> None:
        """Raises ValueError for settings that the transform does not have."""
        spatial_values(self.settings.values, self.spatial_dims)

    def encodes(self, input: Tensor) -> Tensor:
        """The same as calling the module: the name under which fastai looks for a transform."""
        return self(input)

    def extra_repr(self) -> str:
        return _listed(
            channels=self.channels, **self.settings.as_dict(), spatial_dims=self.spatial_dims,
            backend=self.backend,
        )  # fmt: skip


def _attribute(name: str) -> property:
    """A setting of the module's own, to read and to change."""

    def change(module: _Weights, value) -> None:
        module.settings = module.settings.replace(**{name: value})
        module._check_settings()

    return property(lambda module: getattr(module.settings, name), change)


for _name in NAMES:
    setattr(_Weights, _name, _attribute(_name))


class WeightTransform(_Weights):
    """Instance labels to loss weights: `weight_map` with deepflash2's real-time defaults.

    The defaults reproduce deepflash2's transform, whose border term is nearly always 0 on real tiles, since
    one instance out of reach switches it off. For the published U-Net weights take `UNetWeights`, or choose
    another preset; `weight_map` has a table of them:

        "unet2019"             Falk et al. 2019, for touching cells: `UNetWeights`
        "unet2015"             Ronneberger et al. 2015, with class balance
        "deepflash2_offline"   deepflash2's `calculate_weights`, without ridges
        "deepflash2_logconv"   the same, faster, with city-block-like distances; the defaults of `weight_map`
        "deepflash2"           deepflash2's real-time transform

    A fastai `TensorImage` or `TensorMask` passes through unchanged, as in deepflash2.

    Args:
        channels: accepted for compatibility, not needed; any H and W work.
        bws: border weight sigma in pixels, > 0; None: the preset's.
        fds: foreground distance sigma in pixels, > 0.
        bwf: border weight factor, from 0 to 1e30; None: the preset's.
        fbr: foreground background ratio, from 0 to 1e30.
        lmbda: decay length of the LogConv kernel in pixels, > 0. Of no effect with "euclidean".
        ks: size of the LogConv kernel in pixels, >= 1; an even one is taken one larger. None: unbounded. Of
            no effect with "euclidean".
        preset: one of the names above. What is given beside it wins.
        distance: "logconv" or "euclidean"; None: the preset's.
        border: "farthest" or "second_nearest"; None: the preset's.
        falloff, balance, border_everywhere, gaps: as for `weight_map`; None: the preset's.
        spacing: the length of a pixel along each axis, (sy, sx) or (sz, sy, sx), the unit of `bws` and `fds`.
        spatial_dims: 2 for images, 3 for volumes, which have exact distances alone: name a preset.
        ignore_index: the label of pixels to ignore, or a list of such labels.
        backend: "auto", "triton", "native" or "reference".

    Shape:
        labels [B, H, W] or [H, W] (volumes: [B, D, H, W] or [D, H, W]), of any integer or floating-point type
        or bool -> weights of the same shape, float32 for integer and bool labels, else the labels' dtype.
        When called, it takes `classes`, `ignore` and `foreground` as `weight_map` does.

    Raises:
        TypeError, ValueError: at construction for a setting of the wrong type or out of its range; when
            called, as for `weight_map`.

    Source: deepflash2 (Griebel et al.), with the distance of Karam, Sugimoto and Hirakawa, 2019.
    """

    def __init__(
        self,
        channels: int | None = None,
        bws: float | None = None,
        fds: float = 10,
        bwf: float | None = None,
        fbr: float = 0.1,
        lmbda: float = 0.35,
        ks: int | None = 73,
        *,
        preset: PresetName = "deepflash2",
        distance: DistanceName | None = None,
        border: BorderName | None = None,
        falloff: FalloffName | None = None,
        balance: BalanceName | None = None,
        border_everywhere: bool = False,
        gaps: bool | None = None,
        spacing: tuple[float, ...] | None = None,
        spatial_dims: int = 2,
        ignore_index: checks.IgnoreIndex | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            channels, bws, fds, bwf, fbr, lmbda, ks,
            preset=preset, distance=distance, border=border, falloff=falloff, balance=balance,
            border_everywhere=border_everywhere, gaps=gaps, spacing=spacing, spatial_dims=spatial_dims,
            backend=backend,
        )  # fmt: skip
        self.ignore_index = None if ignore_index is None else checks.check_ignore_labels(ignore_index)

    def forward(
        self,
        labels: Tensor,
        classes: Tensor | None = None,
        ignore: Tensor | None = None,
        foreground: Tensor | None = None,
    ) -> Tensor:
        if type(labels) is not Tensor and is_fastai_image(labels):
            return labels
        return functional.weight_map(
            labels,
            classes=classes,
            ignore=ignore,
            ignore_index=self.ignore_index,
            foreground=foreground,
            settings=self.settings,
            spatial_dims=self.spatial_dims,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ignore_index={self.ignore_index}"


class UNetWeights(WeightTransform):
    """`WeightTransform` with the weights of the U-Net's authors: `preset="unet2019"`, exact distances.

    Where cells touch, a gap of background, one pixel wide, gets the largest weights. The training target
    needs the same gaps: `separate_touching(labels) > 0`.

    Args:
        bws: border weight sigma in pixels, > 0.
        fds: foreground distance sigma in pixels, > 0.
        bwf: border weight factor, from 0 to 1e30.
        fbr: foreground background ratio, the weight of the far background, from 0 to 1e30.
        border_everywhere: True adds the border term on the foreground, too.
        gaps: False leaves touching cells as they are, as they must be where the target has no gaps.
        spacing, spatial_dims: as for `WeightTransform`.
        ignore_index: the label of pixels to ignore, or a list of such labels.
        backend: "auto", "triton", "native" or "reference".

    Shape, errors: as for `WeightTransform`.

    Source: Falk et al., "U-Net: deep learning for cell counting, detection, and morphometry", Nature Methods
    16, 2019, as the authors' plugin for Fiji computes them.
    """

    def __init__(
        self,
        bws: float = 6,
        fds: float = 10,
        bwf: float = 50,
        fbr: float = 0.1,
        *,
        border_everywhere: bool = False,
        gaps: bool = True,
        spacing: tuple[float, ...] | None = None,
        spatial_dims: int = 2,
        ignore_index: checks.IgnoreIndex | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            bws=bws, fds=fds, bwf=bwf, fbr=fbr, preset="unet2019", border_everywhere=border_everywhere,
            gaps=gaps, spacing=spacing, spatial_dims=spatial_dims, ignore_index=ignore_index, backend=backend,
        )  # fmt: skip


class WeightTransformSingle(_Weights):
    """One mask per region to one map of loss weights: `region_weight_map` with deepflash2's defaults.

    Args:
        channels: height and width of the result where there are zero regions; None takes the input's.
        bws, fds, bwf, fbr, lmbda, ks, preset, distance, border, backend: as for `WeightTransform`.
        falloff, balance, border_everywhere, gaps: those of "deepflash2"; region masks have no others.
        spacing, spatial_dims: as for `WeightTransform`.

    Shape:
        masks [ROIS, H, W], finite and >= 0, may overlap, may be soft -> weights [H, W], or, without any
        region, `fbr` in [channels, channels]; [B, ROIS, H, W] -> [B, H, W]. When called, it takes `classes`
        and `ignore` as `region_weight_map` does.

    Raises:
        TypeError, ValueError: at construction for a setting of the wrong type or out of its range; when
            called, as for `region_weight_map`.

    Source: deepflash2 (Griebel et al.), with the distance of Karam, Sugimoto and Hirakawa, 2019.
    """

    def _check_settings(self) -> None:
        super()._check_settings()
        checks.check_of_regions(self.settings.values)

    def forward(
        self,
        masks: Tensor,
        classes: Sequence[int] | Tensor | None = None,
        ignore: Tensor | None = None,
    ) -> Tensor:
        weights = functional.region_weight_map(
            masks, classes=classes, ignore=ignore, settings=self.settings, spatial_dims=self.spatial_dims,
            backend=self.backend,
        )  # fmt: skip
        if (
            self.channels is not None
            and masks.dim() == 3
            and self.spatial_dims == 2
            and masks.shape[0] == 0
            and ignore is None
        ):
            return weights.new_full((self.channels, self.channels), self.fbr)
        return weights


class SeparableConv2D(nn.Module):
    """Convolution with `lambda_kernel` along W, then along H: `separable_conv2d` as a module.

    Args:
        lmbda: decay length of the kernel in pixels, > 0.
        channels: accepted for compatibility, not needed; any H and W work.
        ks: kernel size in pixels, >= 1; an even one is taken one larger.
        padding_mode: "constant" (zeros), "reflect", "replicate" or "circular".
        backend: "auto", "triton", "native" or "reference".

    Shape:
        input [N, H, W] -> [N, H, W], of the input's dtype (float32 for integers and bool). Differentiable.

    Raises:
        TypeError, ValueError: at construction for a setting of the wrong type or out of its range; when
            called, as for `separable_conv2d`.

    Source: deepflash2 (Griebel et al.), after Karam, Sugimoto and Hirakawa, 2019.
    """

    def __init__(
        self,
        lmbda: float,
        channels: int | None = None,
        ks: int = 73,
        padding_mode: str = "constant",
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.lmbda, self.ks = checks.check_convolution(lmbda, ks, padding_mode, backend)
        self.channels = _check_channels(channels)
        self.padding_mode = padding_mode
        self.backend = backend

    def forward(self, input: Tensor) -> Tensor:
        return functional.separable_conv2d(
            input, self.lmbda, self.ks, self.padding_mode, backend=self.backend
        )

    def extra_repr(self) -> str:
        return _listed(
            lmbda=self.lmbda,
            channels=self.channels,
            ks=self.ks,
            padding_mode=self.padding_mode,
            backend=self.backend,
        )


def _check_channels(channels) -> int | None:
    if channels is None:
        return None
    if isinstance(channels, bool) or not isinstance(channels, numbers.Integral):
        raise TypeError(
            f"channels must be an integer or None, got {channels!r} of type {type(channels).__name__}"
        )
    if channels < 0:
        raise ValueError(f"channels must be >= 0 or None, got {channels}")
    return int(channels)


def is_fastai_image(value) -> bool:
    """Whether it is fastai's TensorImage or TensorMask, told by name to do without fastai."""
    return any(
        base.__name__ in ("TensorImage", "TensorMask") and base.__module__.split(".")[0] == "fastai"
        for base in type(value).__mro__
    )


def _listed(**settings) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
