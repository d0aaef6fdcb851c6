"""Weights files that people have on their disks, for docs/formats.md; tests say they are true."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightRow:
    """One kind of weights file."""

    what: str
    """Where the file comes from."""
    keys: str
    """The names in it, or what its bytes are."""
    result: str
    """`read`, or the words of the refusal."""


READ, REFUSED = "read", "refused: "

WEIGHTS = (
    WeightRow("the hub's cache", "snapshots/REV/model.safetensors, a link to blobs/SHA256", READ),
    WeightRow("timm", "safetensors or torch; state_dict, model, their averages; module.", READ),
    WeightRow("a file under another name", "safetensors as .bin, .pth or without an ending", READ),
    WeightRow("Meta's DINOv2", "torch; blocks.N.., mask_token", READ),
    WeightRow("Meta's DINOv3", "torch; storage_tokens; biases of q and v count", READ),
    WeightRow("transformers' DINOv2", "embeddings.., encoder.layer.N..", READ),
    WeightRow("transformers' DINOv3", "embeddings.., layer.N.attention.q_proj..", READ),
    WeightRow("transformers' SigLIP", "vision_model.encoder.layers.N..", READ),
    WeightRow("transformers' CLIP", "vision_model.., visual_projection", READ),
    WeightRow("open_clip", "visual.transformer.resblocks.N..", READ),
    WeightRow("OpenAI's ViT-L-14-336px.pt", "a TorchScript archive, half precision; not run", READ),
    WeightRow("Lightning", "state_dict; model. or backbone. before each name", READ),
    WeightRow("objects among tensors", "options, whole models; classes are not imported", READ),
    WeightRow("DINO training", "teacher.backbone.., student.backbone..; the teacher", READ),
    WeightRow("half precision", "float16 or bfloat16, at any input size", READ),
    WeightRow("several files", "model.safetensors.index.json and its parts", READ),
    WeightRow("two models in one file", "left.blocks.., right.blocks..", f"{REFUSED}save the one"),
    WeightRow("adapters (LoRA)", "blocks.N.attn.qkv.lora_A", f"{REFUSED}Unexpected key"),
    WeightRow("part of weights in several files", "model-00001-of-00002..", f"{REFUSED}give "),
    WeightRow("another model's weights", "names or shapes that differ", f"{REFUSED}does not fit"),
    WeightRow("big_vision's SigLIP", ".npz: params/img/..", f"{REFUSED}take timm's conversion"),
    WeightRow("git-lfs pointer", "version https://git-lfs..", f"{REFUSED}git lfs pull"),
    WeightRow("web page", "<!DOCTYPE html>..", f"{REFUSED}download the file itself"),
    WeightRow("torch cut short", "a zip archive without its end", f"{REFUSED}download it again"),
    WeightRow("safetensors cut short", "less than its header says", f"{REFUSED}download it again"),
    WeightRow("pickle", "by Python itself, of arrays or tensors", f"{REFUSED}a Python pickle"),
    WeightRow("gzip", "or zip, tar, xz, zstd, ..", f"{REFUSED}unpack it first"),
    WeightRow("keras", "HDF5", f"{REFUSED}save its weights with torch or safetensors first"),
    WeightRow("gguf", "quantised", f"{REFUSED}give the unquantised weights"),
    WeightRow("a folder", "model.safetensors in it", f"{REFUSED}name the file in it"),
    WeightRow("an address", "https://..", f"{REFUSED}download it and give the file"),
    WeightRow("a pipe or device", "", f"{REFUSED}pipe, socket or device"),
)  # fmt: skip
"""In the order of the page."""
