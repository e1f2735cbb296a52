"""Networks that `transformers` lacks, builds only at full width, or has in a form that one exporter refuses:
detection, sequences, diffusion, shifted windows, a decoder's single step.
"""

import math

import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, activation: nn.Module
) -> nn.Sequential:
    """Convolution without bias, batch normalisation, activation: the brick of the mobile networks."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        activation,
    )


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are convolved, then both are interleaved (Ma et al. 2018, figure 3)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2

        def depthwise(channels: int) -> nn.Sequential:
            return conv_bn(channels, channels, 3, stride, channels, nn.Identity())

        taken = inputs if stride > 1 else half
        self.left = nn.Sequential(depthwise(inputs), conv_bn(inputs, half, 1, 1, 1, nn.ReLU()))
        self.right = nn.Sequential(
            conv_bn(taken, half, 1, 1, 1, nn.ReLU()), depthwise(half), conv_bn(half, half, 1, 1, 1, nn.ReLU())
        )
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            left, right = self.left(x), self.right(x)
        else:
            left, taken = x.chunk(2, dim=1)
            right = self.right(taken)
        y = torch.cat([left, right], 1)
        n, c, h, w = y.size()
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def shuffle_net(widths: tuple[int, ...], repeats: tuple[int, ...], classes: int) -> nn.Sequential:
    """Ma et al. 2018, table 5: stem, stages of units of which the first halves the image, head."""
    layers: list[nn.Module] = [conv_bn(3, widths[0], 3, 2, 1, nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    channels = widths[0]
    for width, count in zip(widths[1:], repeats, strict=True):
        for repeat in range(count):
            layers.append(ShuffleUnit(channels, width, 2 if repeat == 0 else 1))
            channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


class Detector(nn.Module):
    """Two levels of features, pooling of growing windows, a neck that resizes and concatenates, and a head
    that turns distributions over distances into boxes, as YOLOv8 has them.
    """

    def __init__(self, width: int, classes: int, size: int, bins: int = 8) -> None:
        super().__init__()

        def brick(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
            return conv_bn(inputs, outputs, kernel, stride, 1, nn.SiLU())

        w, self.classes, self.bins = width, classes, bins
        self.fine = nn.Sequential(brick(3, w, 3, 2), brick(w, 2 * w, 3, 2))
        self.coarse, self.squeeze = brick(2 * w, 4 * w, 3, 2), brick(4 * w, w, 1)
        self.widen, self.join = brick(4 * w, 4 * w, 1), brick(6 * w, 2 * w)
        self.heads = nn.ModuleList(nn.Conv2d(c, 4 * bins + classes, 1) for c in (2 * w, 4 * w))
        self.mean = nn.Conv2d(bins, 1, 1, bias=False)
        centres, strides = [], []
        for stride in (4, 8):
            steps = torch.arange(size // stride) + 0.5
            y, x = torch.meshgrid(steps, steps, indexing="ij")
            centres.append(torch.stack([x.flatten(), y.flatten()]))
            strides.append(torch.full((1, x.numel()), float(stride)))
        self.register_buffer("centres", torch.cat(centres, 1)[None])
        self.register_buffer("strides", torch.cat(strides, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        pools = [self.squeeze(self.coarse(fine))]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        coarse = self.widen(torch.cat(pools, 1))
        fine = self.join(torch.cat([F.interpolate(coarse, scale_factor=2.0, mode="nearest"), fine], 1))
        found = [head(level).flatten(2) for head, level in zip(self.heads, (fine, coarse), strict=True)]
        box, score = torch.cat(found, 2).split((4 * self.bins, self.classes), 1)
        n, _, places = box.shape
        shares = box.view(n, 4, self.bins, places).transpose(1, 2).softmax(1)
        before, after = self.mean(shares).view(n, 4, places).chunk(2, 1)
        low, high = self.centres - before, self.centres + after
        return torch.cat([(low + high) / 2 * self.strides, (high - low) * self.strides, score.sigmoid()], 1)


class Diffusion(nn.Module):
    """One level of a latent diffusion model (Rombach et al. 2022): noise level, residual block with group
    norms, self- and cross-attention over pixels, a gated feed-forward layer, and a skip connection.
    """

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        c, self.width, self.heads = width, width, heads
        self.into, self.out = nn.Conv2d(4, c, 3, padding=1), nn.Conv2d(c, 4, 3, padding=1)
        self.down, self.up = nn.Conv2d(c, c, 3, 2, 1), nn.Conv2d(c, c, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(c, 2 * c), nn.SiLU(), nn.Linear(2 * c, c))
        self.before = nn.Sequential(nn.GroupNorm(4, c), nn.SiLU(), nn.Conv2d(c, c, 3, padding=1))
        self.after = nn.Sequential(nn.GroupNorm(4, c), nn.SiLU(), nn.Conv2d(c, c, 3, padding=1))
        self.pixels, self.last = nn.GroupNorm(4, c, eps=1e-6), nn.GroupNorm(4, c)
        self.norms = nn.ModuleList(nn.LayerNorm(c) for _ in range(3))
        self.queries = nn.ModuleList(nn.Linear(c, c, bias=False) for _ in range(2))
        self.keys = nn.ModuleList(nn.Linear(d, c, bias=False) for d in (c, context))
        self.values = nn.ModuleList(nn.Linear(d, c, bias=False) for d in (c, context))
        self.gate, self.project = nn.Linear(c, 4 * c), nn.Linear(2 * c, c)

    def attend(self, layer: int, x: Tensor, context: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.view(y.shape[0], -1, self.heads, self.width // self.heads).transpose(1, 2)

        q, k, v = self.queries[layer](x), self.keys[layer](context), self.values[layer](context)
        y = F.scaled_dot_product_attention(split(q), split(k), split(v))
        return y.transpose(1, 2).reshape(x.shape)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        half = self.width // 2
        angles = time[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)[None]
        level = self.time(torch.cat([torch.cos(angles), torch.sin(angles)], -1))
        skip = self.into(x)
        x = self.down(skip)
        x = x + self.after(self.before(x) + level[:, :, None, None])
        n, c, h, w = x.shape
        y = self.pixels(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        z = self.norms[0](y)
        y = y + self.attend(0, z, z)
        y = y + self.attend(1, self.norms[1](y), context)
        value, gate = self.gate(self.norms[2](y)).chunk(2, -1)
        y = y + self.project(value * F.gelu(gate))
        x = x + y.reshape(n, h, w, c).permute(0, 3, 1, 2)
        x = self.up(F.interpolate(x, scale_factor=2.0, mode="nearest")) + skip
        return self.out(F.silu(self.last(x)))


class ShiftedWindows(nn.Module):
    """Attention in windows, rolled by half a window, with relative biases and a mask (Liu et al. 2021)."""

    def __init__(self, width: int, heads: int, size: int, window: int) -> None:
        super().__init__()
        self.heads, self.size, self.window, self.shift = heads, size, window, window // 2
        self.embed, self.head = nn.Conv2d(3, width, 4, 4), nn.Linear(width, 10)
        self.norm, self.final = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.biases = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        steps = torch.arange(window)
        places = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)
        offsets = places[:, :, None] - places[:, None, :] + window - 1
        self.register_buffer("index", offsets[0] * (2 * window - 1) + offsets[1])
        regions = torch.zeros(size, size)
        edges = (slice(0, -window), slice(-window, -self.shift), slice(-self.shift, None))
        for i, rows in enumerate(edges):
            for j, columns in enumerate(edges):
                regions[rows, columns] = 3 * i + j
        region = self.split(regions[None, :, :, None]).squeeze(-1)
        self.register_buffer("mask", -100.0 * (region[:, None, :] != region[:, :, None]).float())

    def split(self, x: Tensor) -> Tensor:
        """[n, h, w, c] as [windows, pixels, c]."""
        n, h, w, c = x.shape
        x = x.view(n, h // self.window, self.window, w // self.window, self.window, c)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.window**2, c)

    def attend(self, x: Tensor) -> Tensor:
        windows, pixels, c = x.shape
        q, k, v = self.qkv(x).view(windows, pixels, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        scores = scores + self.biases[self.index.flatten()].view(pixels, pixels, -1).permute(2, 0, 1)[None]
        masks = self.mask.shape[0]
        scores = scores.view(-1, masks, self.heads, pixels, pixels) + self.mask[None, :, None]
        weights = scores.view(-1, self.heads, pixels, pixels).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(windows, pixels, c))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        rolled = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2))
        y = self.attend(self.split(rolled)).view(
            n, h // self.window, w // self.window, self.window, self.window, c
        )
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return self.head(self.final(x).mean((1, 2)))


class CachedDecoder(nn.Module):
    """One step of a decoder with the keys and values of the steps before, as decoders are deployed."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids: Tensor, mask: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        cache = hf.DynamicCache()
        cache.update(keys, values, 0)
        result = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        layer = result.past_key_values.layers[0]
        return result.logits, layer.keys, layer.values
