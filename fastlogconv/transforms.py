"""deepflash2's transforms as modules: they hold settings and call `functional`."""

from __future__ import annotations

import numbers

from torch import Tensor, nn

from . import functional


class _Weights(nn.Module):
    """Settings of `weight_map` under deepflash2's names and real-time defaults."""

    def __init__(
        self,
        channels: int | None = None,
        bws: float = 10,
        fds: float = 10,
        bwf: float = 1,
        fbr: float = 0.1,
        lmbda: float = 0.35,
        ks: int = 73,
        *,
        border: str = "farthest",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.channels = _check_channels(channels)
        settings = functional.check_settings(
            border=border, bws=bws, fds=fds, bwf=bwf, fbr=fbr, lmbda=lmbda, ks=ks, backend=backend
        )
        for name, value in settings.items():
            setattr(self, name, value)

    def _settings(self) -> dict[str, str | float | int]:
        return dict(
            border=self.border, bws=self.bws, fds=self.fds, bwf=self.bwf, fbr=self.fbr, lmbda=self.lmbda,
            ks=self.ks, backend=self.backend,
        )  # fmt: skip

    def encodes(self, input: Tensor) -> Tensor:
        """The same as calling the module: the name under which fastai looks for a transform."""
        return self(input)

    def extra_repr(self) -> str:
        return _listed(channels=self.channels, **self._settings())


class WeightTransform(_Weights):
    """Instance labels to loss weights: `weight_map` with deepflash2's real-time defaults.

    The defaults reproduce deepflash2's transform, whose border term is nearly always 0 on real tiles, since
    one instance out of reach switches it off. For the published U-Net weights pass `border="second_nearest",
    bwf=10` or call `weight_map`, whose defaults they are.

    A fastai `TensorImage` or `TensorMask` passes through unchanged, as in deepflash2.

    Args:
        channels: accepted for compatibility, not needed; any H and W work.
        bws: border weight sigma in pixels, > 0.
        fds: foreground distance sigma in pixels, > 0.
        bwf: border weight factor, >= 0.
        fbr: foreground background ratio, >= 0.
        lmbda: decay length of the LogConv kernel in pixels, > 0.
        ks: kernel size in pixels, >= 1; an even one is taken one larger.
        border: "farthest" or "second_nearest".
        backend: "auto", "native" or "reference".

    Shape:
        labels [B, H, W] or [H, W], of any integer or floating-point type or bool -> weights of the same
        shape, float32 for integer and bool labels, else the labels' dtype.

    Raises:
        TypeError, ValueError: at construction for a setting of the wrong type or out of its range; when
            called, as for `weight_map`.

    Source: deepflash2 (Griebel et al.), with the distance of Karam, Sugimoto and Hirakawa, 2019.
    """

    def forward(self, labels: Tensor) -> Tensor:
        if type(labels) is not Tensor and _is_fastai_image(labels):
            return labels
        return functional.weight_map(labels, **self._settings())


class WeightTransformSingle(_Weights):
    """One mask per region to one map of loss weights: `region_weight_map` with deepflash2's defaults.

    Args:
        channels: height and width of the result where there are zero regions; None takes the input's.
        bws, fds, bwf, fbr, lmbda, ks, border, backend: as for `WeightTransform`.

    Shape:
        masks [ROIS, H, W], finite and >= 0, may overlap, may be soft -> weights [H, W], or, without any
        region, `fbr` in [channels, channels].

    Raises:
        TypeError, ValueError: at construction for a setting of the wrong type or out of its range; when
            called, as for `region_weight_map`.

    Source: deepflash2 (Griebel et al.), with the distance of Karam, Sugimoto and Hirakawa, 2019.
    """

    def forward(self, masks: Tensor) -> Tensor:
        weights = functional.region_weight_map(masks, **self._settings())
        if self.channels is not None and masks.shape[0] == 0:
            return weights.new_full((self.channels, self.channels), self.fbr)
        return weights


class SeparableConv2D(nn.Module):
    """Convolution with `lambda_kernel` along W, then along H: `separable_conv2d` as a module.

    Args:
        lmbda: decay length of the kernel in pixels, > 0.
        channels: accepted for compatibility, not needed; any H and W work.
        ks: kernel size in pixels, >= 1; an even one is taken one larger.
        padding_mode: "constant" (zeros), "reflect", "replicate" or "circular".
        backend: "auto", "native" or "reference".

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
        self.lmbda, self.ks = functional.check_convolution(lmbda, ks, padding_mode, backend)
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


def _is_fastai_image(value) -> bool:
    """Whether it is fastai's TensorImage or TensorMask, told by name to do without fastai."""
    return any(
        base.__name__ in ("TensorImage", "TensorMask") and base.__module__.split(".")[0] == "fastai"
        for base in type(value).__mro__
    )


def _listed(**settings) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
