"""The four presets once more, written down plainly: random weights, pixels and tokens.

Nothing here is shared with `pipeline.backbones`, timm or open_clip: tensors by the names of Meta,
big_vision in timm's spelling, and OpenAI, and the forward pass in a few lines of PyTorch. Tests and
`benchmarks.presets` compare the real presets with it.

B images, n tokens, d channels, h heads. Source: the models' papers and published code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import functional as transforms

Tensors = dict[str, Tensor]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Plain:
    """One preset: its shape, and how it turns images into tokens."""

    patch: int
    size: int
    """Side of the input in pixels."""
    grid: int
    """Side of the grid that its position embedding was trained on."""
    n_prefix: int
    eps: float
    """Of its layer norms."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bicubic: bool
    """Whether images are resized by Pillow's bicubic; else as floats, bilinear."""
    weights: Callable[["Plain", int, int, int], Tensors]
    """Random weights of a width, a depth and a number of heads."""
    tokens: Callable[["Plain", Tensors, Tensor, int], Tensor]
    """Patch tokens `(B, n, d)` of pixels `(B, 3, H, W)`, with a number of heads."""


def pixels_of(image: Image.Image, plain: Plain) -> Tensor:
    """Turn an RGB image into pixels `(3, size, size)`, by torchvision's transforms."""
    size = [plain.size, plain.size]
    if plain.bicubic:
        mode = transforms.InterpolationMode.BICUBIC
        scaled = transforms.to_tensor(transforms.resize(image, size, mode))
    else:
        scaled = transforms.resize(transforms.to_tensor(image), size, antialias=True)
    pixels: Tensor = transforms.normalize(scaled, list(plain.mean), list(plain.std))
    return pixels


# --- the blocks that all share ---------------------------------------------------------------


def _norm(x: Tensor, w: Tensors, name: str, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def _linear(x: Tensor, w: Tensors, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def _attend(qkv: Tensor, n_heads: int, turn: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Mix tokens `(B, n, 3 d)` by attention; `turn` rotates queries and keys."""
    n_images, n_tokens, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (
        part.reshape(n_images, n_tokens, n_heads, -1).transpose(1, 2) for part in qkv.chunk(3, -1)
    )
    if turn is not None:
        q, k = turn(q), turn(k)
    mixed = torch.softmax(q @ k.mT / math.sqrt(width // n_heads), -1) @ v
    return mixed.transpose(1, 2).reshape(n_images, n_tokens, width)


def _patches(pixels: Tensor, w: Tensors, name: str, patch: int) -> Tensor:
    """Embed the patches of `(B, 3, H, W)` as `(B, n, d)`, row by row."""
    columns = functional.unfold(pixels, patch, stride=patch).transpose(1, 2)
    kernel = w[f"{name}.weight"]
    return columns @ kernel.reshape(len(kernel), -1).T + w.get(f"{name}.bias", torch.zeros(()))


def _positions(table: Tensor, n_prefix: int, rows: int, cols: int, mode: str) -> Tensor:
    """Resize positions `(n_prefix + side^2, d)` to rows x cols without antialiasing."""
    side = math.isqrt(len(table) - n_prefix)
    image = table[n_prefix:].T.reshape(1, -1, side, side)
    resized = functional.interpolate(image, size=(rows, cols), mode=mode, align_corners=False)
    return torch.cat([table[:n_prefix], resized[0].flatten(1).T])


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


# --- DINOv2, DINOv3, SigLIP ------------------------------------------------------------------


def _dino_weights(plain: Plain, width: int, depth: int, n_heads: int) -> Tensors:
    w = {
        "cls_token": torch.randn(1, 1, width),
        "mask_token": torch.randn(1, width),
        **_layer("patch_embed.proj", width, 3, plain.patch, plain.patch),
        **_scale("norm", width),
    }
    if plain.n_prefix == 1:
        w["pos_embed"] = torch.randn(1, 1 + plain.grid**2, width)
    else:
        w["storage_tokens"] = torch.randn(1, plain.n_prefix - 1, width)
    for block in range(depth):
        name = f"blocks.{block}"
        w |= _block(name, width, "norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2")
        w |= _layer(f"{name}.attn.qkv", 3 * width, width)
        w |= {f"{name}.ls{i}.gamma": 0.5 + 0.2 * torch.randn(width) for i in (1, 2)}
        if plain.n_prefix > 1:  # DINOv3's released weights have biases of zero
            w[f"{name}.attn.qkv.bias"].zero_()
    return w


def _dinov2(plain: Plain, w: Tensors, pixels: Tensor, n_heads: int) -> Tensor:
    rows, cols = pixels.shape[2] // plain.patch, pixels.shape[3] // plain.patch
    x = _patches(pixels, w, "patch_embed.proj", plain.patch)
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1)
    x = x + _positions(w["pos_embed"][0], 1, rows, cols, "bicubic")
    x = _dino_blocks(plain, w, x, lambda qkv: _attend(qkv, n_heads))
    return x[:, 1:]  # before the final norm


def _dinov3(plain: Plain, w: Tensors, pixels: Tensor, n_heads: int) -> Tensor:
    rows, cols = pixels.shape[2] // plain.patch, pixels.shape[3] // plain.patch
    x = _patches(pixels, w, "patch_embed.proj", plain.patch)
    prefix = torch.cat([w["cls_token"], w["storage_tokens"]], 1).expand(len(x), -1, -1)
    turn = _rotation(rows, cols, x.shape[-1] // n_heads, plain.n_prefix)
    x = torch.cat([prefix, x], 1)
    x = _dino_blocks(plain, w, x, lambda qkv: _attend(qkv, n_heads, turn))
    return _norm(x, w, "norm", plain.eps)[:, plain.n_prefix :]


def _dino_blocks(plain: Plain, w: Tensors, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
    for block in range(_depth(w, "blocks")):
        name = f"blocks.{block}"
        mixed = attend(_linear(_norm(x, w, f"{name}.norm1", plain.eps), w, f"{name}.attn.qkv"))
        x = x + w[f"{name}.ls1.gamma"] * _linear(mixed, w, f"{name}.attn.proj")
        inner = _linear(_norm(x, w, f"{name}.norm2", plain.eps), w, f"{name}.mlp.fc1")
        x = x + w[f"{name}.ls2.gamma"] * _linear(_gelu(inner), w, f"{name}.mlp.fc2")
    return x


def _rotation(rows: int, cols: int, width: int, n_prefix: int) -> Callable[[Tensor], Tensor]:
    """Give DINOv3's rotation of the patch tokens `(B, h, n_prefix + rows cols, width)`."""
    periods = 100.0 ** (2 * torch.arange(width // 4) / (width // 2))
    down = 2 * (torch.arange(rows) + 0.5) / rows - 1
    right = 2 * (torch.arange(cols) + 0.5) / cols - 1
    places = torch.stack(torch.meshgrid(down, right, indexing="ij"), -1).reshape(-1, 2)
    angles = (2 * math.pi * places[:, :, None] / periods).flatten(1).repeat(1, 2)

    def turn(x: Tensor) -> Tensor:
        still, moved = x[:, :, :n_prefix], x[:, :, n_prefix:]
        first, second = moved.chunk(2, -1)
        turned = moved * angles.cos() + torch.cat([-second, first], -1) * angles.sin()
        return torch.cat([still, turned], 2)

    return turn


def _siglip_weights(plain: Plain, width: int, depth: int, n_heads: int) -> Tensors:
    w = {
        "pos_embed": torch.randn(1, plain.grid**2, width),
        **_layer("patch_embed.proj", width, 3, plain.patch, plain.patch),
        **_scale("norm", width),
    }
    for block in range(depth):
        name = f"blocks.{block}"
        w |= _block(name, width, "norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2")
        w |= _layer(f"{name}.attn.qkv", 3 * width, width)
    return w


def _siglip(plain: Plain, w: Tensors, pixels: Tensor, n_heads: int) -> Tensor:
    rows, cols = pixels.shape[2] // plain.patch, pixels.shape[3] // plain.patch
    x = _patches(pixels, w, "patch_embed.proj", plain.patch)
    x = x + _positions(w["pos_embed"][0], 0, rows, cols, "bicubic")
    for block in range(_depth(w, "blocks")):
        name = f"blocks.{block}"
        qkv = _linear(_norm(x, w, f"{name}.norm1", plain.eps), w, f"{name}.attn.qkv")
        x = x + _linear(_attend(qkv, n_heads), w, f"{name}.attn.proj")
        inner = _linear(_norm(x, w, f"{name}.norm2", plain.eps), w, f"{name}.mlp.fc1")
        x = x + _linear(_gelu_tanh(inner), w, f"{name}.mlp.fc2")
    return _norm(x, w, "norm", plain.eps)


# --- OpenAI's CLIP ---------------------------------------------------------------------------


def _clip_weights(plain: Plain, width: int, depth: int, n_heads: int) -> Tensors:
    w = {
        "class_embedding": torch.randn(width),
        "positional_embedding": torch.randn(1 + plain.grid**2, width),
        "conv1.weight": _layer("", width, 3, plain.patch, plain.patch)[".weight"],
        "proj": torch.randn(width, width * 3 // 4) / math.sqrt(width),
        **_scale("ln_pre", width),
        **_scale("ln_post", width),
    }
    for block in range(depth):
        name = f"transformer.resblocks.{block}"
        w |= _block(name, width, "ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
        qkv = _layer("", 3 * width, width)
        w[f"{name}.attn.in_proj_weight"], w[f"{name}.attn.in_proj_bias"] = qkv.values()
    return {f"visual.{name}": tensor for name, tensor in w.items()}


def _clip(plain: Plain, named: Tensors, pixels: Tensor, n_heads: int) -> Tensor:
    w = {name.removeprefix("visual."): tensor for name, tensor in named.items()}
    rows, cols = pixels.shape[2] // plain.patch, pixels.shape[3] // plain.patch
    x = _patches(pixels, w, "conv1", plain.patch)
    x = torch.cat([w["class_embedding"].expand(len(x), 1, -1), x], 1)
    x = x + _positions(w["positional_embedding"], 1, rows, cols, "bilinear")
    x = _norm(x, w, "ln_pre", plain.eps)
    for block in range(_depth(w, "transformer.resblocks")):
        name = f"transformer.resblocks.{block}"
        inside = _norm(x, w, f"{name}.ln_1", plain.eps)
        qkv = inside @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]
        x = x + _linear(_attend(qkv, n_heads), w, f"{name}.attn.out_proj")
        inner = _linear(_norm(x, w, f"{name}.ln_2", plain.eps), w, f"{name}.mlp.c_fc")
        x = x + _linear(_quick_gelu(inner), w, f"{name}.mlp.c_proj")
    return _norm(x, w, "ln_post", plain.eps)[:, 1:] @ w["proj"]


# --- random weights --------------------------------------------------------------------------


def _depth(w: Tensors, blocks: str) -> int:
    n_parts = blocks.count(".") + 1
    return 1 + max(int(name.split(".")[n_parts]) for name in w if name.startswith(f"{blocks}."))


def _layer(name: str, n_out: int, *n_in: int) -> Tensors:
    scale = 1 / math.sqrt(math.prod(n_in))
    return {
        f"{name}.weight": torch.randn(n_out, *n_in) * scale,
        f"{name}.bias": 0.1 * torch.randn(n_out),
    }


def _scale(name: str, width: int) -> Tensors:
    return {
        f"{name}.weight": 1 + 0.2 * torch.randn(width),
        f"{name}.bias": 0.1 * torch.randn(width),
    }


def _block(name: str, width: int, norm1: str, norm2: str, proj: str, fc1: str, fc2: str) -> Tensors:
    return {
        **_scale(f"{name}.{norm1}", width),
        **_scale(f"{name}.{norm2}", width),
        **_layer(f"{name}.{proj}", width, width),
        **_layer(f"{name}.{fc1}", 4 * width, width),
        **_layer(f"{name}.{fc2}", width, 4 * width),
    }


PLAIN = {
    "dinov3": Plain(16, 448, 0, 5, 1e-5, *IMAGENET, False, _dino_weights, _dinov3),
    "dinov2": Plain(14, 448, 37, 1, 1e-6, *IMAGENET, True, _dino_weights, _dinov2),
    "siglip": Plain(16, 448, 24, 0, 1e-6, *HALF, True, _siglip_weights, _siglip),
    "openclip": Plain(14, 518, 24, 1, 1e-5, *OPENAI, True, _clip_weights, _clip),
}
