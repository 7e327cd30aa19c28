"""SEA-RAFT (Wang, Lipson and Deng, ECCV 2024): the network, for inference, in the layout of the
authors' published weights (BSD-3-Clause, https://github.com/princeton-vl/SEA-RAFT).

RAFT with a regressed first guess, two ConvNeXt blocks instead of a GRU, and per pixel a mixture of
two Laplace distributions as its uncertainty. The size (S: ResNet-18, M and L: ResNet-34) is read
off the weights; L is M with more iterations.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS, RADIUS, DIM = 4, 4, 128
"""levels of the correlation pyramid, its window, channels of the hidden state (all sizes)"""
STAGES = (64, 128, 256)
DEPTHS = ((2, 2, 2), (3, 4, 6))
"""residual blocks per stage of ResNet-18 and ResNet-34"""


class SeaRaft(nn.Module):
    """Flow of a pair of pictures. Args: `depths` blocks per stage, `refinements` ConvNeXt blocks
    per iteration, `iterations` (4 for S and M, 12 for L)."""

    def __init__(
        self, depths: tuple[int, ...] = DEPTHS[1], refinements: int = 2, iterations: int = 4
    ) -> None:
        super().__init__()
        self.iterations = iterations
        self.cnet = _Encoder(6, depths)
        self.fnet = _Encoder(3, depths)
        self.init_conv = nn.Conv2d(2 * DIM, 2 * DIM, 3, padding=1)
        self.flow_head = _head(DIM, 6, 3)
        self.upsample_weight = _head(DIM, 64 * 9, 1)
        self.update_block = _Update(refinements)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Flow `[B, 2, H, W]` in pixels from the first picture to the second, and the mixture
        `[B, 4, H, W]` (two weights, two log scales), of pictures `[B, 3, H, W]` in [-1, 1] whose
        sides are multiples of 8."""
        hidden, context = self.init_conv(self.cnet(torch.cat([first, second], 1))).chunk(2, 1)
        pyramid = _Correlation(self.fnet(first), self.fnet(second))
        flow, mixture = self._read(hidden)
        for _ in range(self.iterations):
            hidden = self.update_block(hidden, context, pyramid.around(flow), flow)
            change, mixture = self._read(hidden)
            flow = flow + change
        weights = 0.25 * self.upsample_weight(hidden)
        return _upsampled(8 * flow, weights), _upsampled(mixture, weights)

    def _read(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        found: Tensor = self.flow_head(hidden)
        return found[:, :2], found[:, 2:]


def sea_raft_of(state: Mapping[str, Tensor], iterations: int | None = None) -> SeaRaft:
    """The network with these weights, of the size that they are; `iterations` None: 4.

    Raises:
        ValueError: they are not SEA-RAFT's.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}
    for name, value in list(state.items()):  # one norm under two names; safetensors keeps one
        state.setdefault(name.replace(".bn3.", ".downsample.1."), value)
        state.setdefault(name.replace(".downsample.1.", ".bn3."), value)
    deep = any(name.startswith("cnet.layer3.2.") for name in state)
    blocks = {name.split(".")[2] for name in state if name.startswith("update_block.refine.")}
    network = SeaRaft(DEPTHS[deep], len(blocks) or 2, 4 if iterations is None else iterations)
    missing = sorted({*network.state_dict()} - {*state})
    if missing:
        raise ValueError(f"{len(missing)} weights are missing, the first is {missing[0]}")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error
    return network.eval()


def sureness(mixture: Tensor) -> Tensor:
    """How sure the network is, `[B, 1, H, W]` in (0, 1): the share of the mixture's narrow part,
    whose scale is at most one pixel."""
    return mixture[:, :2].softmax(1)[:, 1:2]


class _Encoder(nn.Module):
    """ResNet without its last stage, `[B, C, H, W]` -> `[B, 2 DIM, H/8, W/8]`."""

    def __init__(self, channels: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, STAGES[0], 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(STAGES[0])
        self.layer1 = _stage(STAGES[0], STAGES[0], 1, depths[0])
        self.layer2 = _stage(STAGES[0], STAGES[1], 2, depths[1])
        self.layer3 = _stage(STAGES[1], STAGES[2], 2, depths[2])
        self.final_conv = nn.Conv2d(STAGES[2], 2 * DIM, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        found: Tensor = self.final_conv(self.layer3(self.layer2(self.layer1(x))))
        return found


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.downsample: nn.Module = nn.Identity()
        if (before, stride) != (after, 1):
            self.bn3 = nn.BatchNorm2d(after)
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride), self.bn3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.downsample(x) + y)


class _Update(nn.Module):
    """One step: correlation and flow become motion features, the hidden state is refined."""

    def __init__(self, refinements: int) -> None:
        super().__init__()
        self.encoder = _Motion()
        self.refine = nn.ModuleList(_ConvNext(3 * DIM, DIM) for _ in range(refinements))

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> Tensor:
        beside = torch.cat([context, self.encoder(flow, correlation)], 1)
        for block in self.refine:
            hidden = block(torch.cat([hidden, beside], 1))
        return hidden


class _Motion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 2 * DIM, 1)
        self.convc2 = nn.Conv2d(2 * DIM, DIM + DIM // 2, 3, padding=1)
        self.convf1 = nn.Conv2d(2, DIM, 7, padding=3)
        self.convf2 = nn.Conv2d(DIM, DIM // 2, 3, padding=1)
        self.conv = nn.Conv2d(2 * DIM, DIM - 2, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        seen = F.relu(self.convc2(F.relu(self.convc1(correlation))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat([F.relu(self.conv(torch.cat([seen, moved], 1))), flow], 1)


class _ConvNext(nn.Module):
    """A ConvNeXt block and a 1x1 convolution to `after` channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(before, before, 7, padding=3, groups=before)
        self.norm = nn.LayerNorm(before, eps=1e-6)
        self.pwconv1 = nn.Linear(before, 4 * after)
        self.pwconv2 = nn.Linear(4 * after, before)
        self.gamma = nn.Parameter(1e-6 * torch.ones(before))
        self.final = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        found: Tensor = self.final(x + y.permute(0, 3, 1, 2))
        return found


class _Correlation:
    """Inner products of all pairs of features, over a pyramid of the second picture."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self._size = first.shape
        b, c, h, w = first.shape
        queries = first.flatten(2).transpose(1, 2) / c**0.5
        self._levels = []
        for _ in range(LEVELS):
            products = queries @ second.flatten(2)
            self._levels.append(products.view(b * h * w, 1, *second.shape[2:]))
            second = F.interpolate(second, scale_factor=0.5, mode="bilinear", align_corners=False)

    def around(self, flow: Tensor) -> Tensor:
        """Correlation around where each pixel went, `[B, LEVELS (2 RADIUS + 1)^2, h, w]`."""
        b, _, h, w = self._size
        steps = torch.arange(-RADIUS, RADIUS + 1, device=flow.device, dtype=flow.dtype)
        # the first axis of the window moves along x, the second along y: so the weights have it
        window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
        ys = torch.arange(h, device=flow.device, dtype=flow.dtype)
        xs = torch.arange(w, device=flow.device, dtype=flow.dtype)
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"))
        centre = (grid + flow).permute(0, 2, 3, 1).reshape(b * h * w, 1, 1, 2)
        found = []
        for level, products in enumerate(self._levels):
            size = torch.tensor(products.shape[:1:-1], device=flow.device, dtype=flow.dtype)
            at = 2 * (centre / 2**level + window) / (size - 1) - 1
            found.append(F.grid_sample(products, at, align_corners=True).view(b, h, w, -1))
        return torch.cat(found, -1).permute(0, 3, 1, 2)


def _stage(before: int, after: int, stride: int, depth: int) -> nn.Sequential:
    more = (_Residual(after, after, 1) for _ in range(depth - 1))
    return nn.Sequential(_Residual(before, after, stride), *more)


def _head(channels: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(2 * channels, outputs, kernel, padding=kernel // 2),
    )


def _upsampled(coarse: Tensor, weights: Tensor) -> Tensor:
    """Eight times the size: each fine pixel is a convex combination of its 3x3 coarse ones."""
    b, c, h, w = coarse.shape
    share = weights.view(b, 1, 9, 8, 8, h, w).softmax(2)
    around = F.unfold(coarse, 3, padding=1).view(b, c, 9, 1, 1, h, w)
    fine = (share * around).sum(2).permute(0, 1, 4, 2, 5, 3)
    return fine.reshape(b, c, 8 * h, 8 * w)
