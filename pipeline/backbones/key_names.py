"""How others name the tensors of these models: tables to read, one a way of naming.

A rule takes a name, without `.weight` or `.bias` where both keep it, to timm's or Meta's name, or
for CLIP to OpenAI's. `N` stands for the number of a block. After the name, `[q]`, `[k]` and `[v]`
say that three tensors are stacked into one, `^T` that a matrix is transposed; no name at all, that
nothing is lost without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Form = Literal["timm", "openai"]
Rules = Mapping[str, str]


@dataclass(frozen=True)
class Naming:
    """One way of naming a vision transformer's tensors."""

    who: str
    anchor: str
    """The tensor by which it is known; what stands before it is a prefix of all the others."""
    form: Form
    """Whose names the rules lead to."""
    rules: Rules | None = None
    """None where nothing is to be renamed."""
    needs: str | None = None
    """A second tensor that it must have, where the anchor alone does not tell."""
    beside: Rules = field(default_factory=dict)
    """Rules for tensors beside those with the prefix."""


_LAYER_SCALE = {
    "layer.N.layer_scale1.lambda1": "blocks.N.ls1.gamma",
    "layer.N.layer_scale2.lambda1": "blocks.N.ls2.gamma",
    "layer.N.norm1": "blocks.N.norm1",
    "layer.N.norm2": "blocks.N.norm2",
}

DINOV2: Rules = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    **{f"encoder.{name}": ours for name, ours in _LAYER_SCALE.items()},
    "encoder.layer.N.attention.attention.query": "blocks.N.attn.qkv[q]",
    "encoder.layer.N.attention.attention.key": "blocks.N.attn.qkv[k]",
    "encoder.layer.N.attention.attention.value": "blocks.N.attn.qkv[v]",
    "encoder.layer.N.attention.output.dense": "blocks.N.attn.proj",
    "encoder.layer.N.mlp.fc1": "blocks.N.mlp.fc1",
    "encoder.layer.N.mlp.fc2": "blocks.N.mlp.fc2",
    "encoder.layer.N.mlp.weights_in": "blocks.N.mlp.fc1",
    "encoder.layer.N.mlp.weights_out": "blocks.N.mlp.fc2",
    "layernorm": "norm",
}

_DINOV3: Rules = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "storage_tokens",
    "rope_embeddings.inv_freq": "",
    "embeddings.patch_embeddings": "patch_embed.proj",
    **_LAYER_SCALE,
    "layer.N.attention.q_proj": "blocks.N.attn.qkv[q]",
    "layer.N.attention.k_proj": "blocks.N.attn.qkv[k]",
    "layer.N.attention.v_proj": "blocks.N.attn.qkv[v]",
    "layer.N.attention.o_proj": "blocks.N.attn.proj",
    "norm": "norm",
}

DINOV3_PLAIN: Rules = {
    **_DINOV3,
    "layer.N.mlp.up_proj": "blocks.N.mlp.fc1",
    "layer.N.mlp.down_proj": "blocks.N.mlp.fc2",
}

DINOV3_GATED: Rules = {
    **_DINOV3,
    "layer.N.mlp.gate_proj": "blocks.N.mlp.w1",
    "layer.N.mlp.up_proj": "blocks.N.mlp.w2",
    "layer.N.mlp.down_proj": "blocks.N.mlp.w3",
}

SIGLIP: Rules = {
    "embeddings.position_ids": "",
    "embeddings.patch_embedding": "patch_embed.proj",
    "embeddings.position_embedding.weight": "pos_embed",
    "encoder.layers.N.layer_norm1": "blocks.N.norm1",
    "encoder.layers.N.layer_norm2": "blocks.N.norm2",
    "encoder.layers.N.self_attn.q_proj": "blocks.N.attn.qkv[q]",
    "encoder.layers.N.self_attn.k_proj": "blocks.N.attn.qkv[k]",
    "encoder.layers.N.self_attn.v_proj": "blocks.N.attn.qkv[v]",
    "encoder.layers.N.self_attn.out_proj": "blocks.N.attn.proj",
    "encoder.layers.N.mlp.fc1": "blocks.N.mlp.fc1",
    "encoder.layers.N.mlp.fc2": "blocks.N.mlp.fc2",
    "post_layernorm": "norm",
}

CLIP: Rules = {
    "embeddings.position_ids": "",  # 0, 1, 2, .., as earlier versions saved them
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding": "conv1",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",  # as transformers spells it
    "encoder.layers.N.layer_norm1": "transformer.resblocks.N.ln_1",
    "encoder.layers.N.layer_norm2": "transformer.resblocks.N.ln_2",
    "encoder.layers.N.self_attn.q_proj.weight": "transformer.resblocks.N.attn.in_proj_weight[q]",
    "encoder.layers.N.self_attn.k_proj.weight": "transformer.resblocks.N.attn.in_proj_weight[k]",
    "encoder.layers.N.self_attn.v_proj.weight": "transformer.resblocks.N.attn.in_proj_weight[v]",
    "encoder.layers.N.self_attn.q_proj.bias": "transformer.resblocks.N.attn.in_proj_bias[q]",
    "encoder.layers.N.self_attn.k_proj.bias": "transformer.resblocks.N.attn.in_proj_bias[k]",
    "encoder.layers.N.self_attn.v_proj.bias": "transformer.resblocks.N.attn.in_proj_bias[v]",
    "encoder.layers.N.self_attn.out_proj": "transformer.resblocks.N.attn.out_proj",
    "encoder.layers.N.mlp.fc1": "transformer.resblocks.N.mlp.c_fc",
    "encoder.layers.N.mlp.fc2": "transformer.resblocks.N.mlp.c_proj",
    "post_layernorm": "ln_post",
}

_PATCHES = "embeddings.patch_embeddings"

NAMINGS = (
    Naming("timm's or Meta's", "patch_embed.proj.weight", "timm"),
    Naming("OpenAI's", "class_embedding", "openai", needs="conv1.weight"),
    Naming("transformers' DINOv2", f"{_PATCHES}.projection.weight", "timm", DINOV2),
    Naming("transformers' DINOv3", f"{_PATCHES}.weight", "timm", DINOV3_GATED,
           needs="layer.0.mlp.gate_proj.weight"),
    Naming("transformers' DINOv3", f"{_PATCHES}.weight", "timm", DINOV3_PLAIN),
    Naming("transformers' CLIP", "embeddings.patch_embedding.weight", "openai", CLIP,
           needs="embeddings.class_embedding", beside={"visual_projection.weight": "proj^T"}),
    Naming("transformers' SigLIP", "embeddings.patch_embedding.weight", "timm", SIGLIP),
)  # fmt: skip
"""The first that fits a file is taken."""

WRAPPERS = (
    "state_dict_ema", "model_ema", "ema", "teacher", "state_dict", "model_state", "model",
    "module", "net", "network", "backbone", "encoder", "student",
)  # fmt: skip
"""Under which a checkpoint keeps its tensors, the averaged ones first."""

COUNTERS = ("n_averaged",)
"""What counts training, beside the tensors of a model: torch's averaged models have it."""

NOISE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What compiling and sharding put into a name, anywhere."""

HEADS = frozenset((
    "head", "heads", "head_dist", "attn_pool", "pooler", "classifier", "fc", "lm_head",
    "projectors", "local_cls_norm",
    # of a masked autoencoder
    "decoder_pos_embed", "decoder_embed", "decoder_blocks", "decoder_norm", "decoder_pred",
))  # fmt: skip
"""First words of what turns tokens into something else, and is left out where a model lacks it."""

BESIDE = HEADS | frozenset((
    # training: heads, losses, the other copy
    "dino_head", "ibot_head", "projector", "projection_head", "predictor", "prototypes", "decoder",
    "decode_head", "auxiliary_head", "neck", "mask_token", "loss", "criterion", "dino_loss",
    "ibot_patch_loss", "koleo_loss", "student", "teacher",
    # the text tower, and what joins it with the image's
    "text", "text_model", "text_projection", "token_embedding", "positional_embedding",
    "transformer", "ln_final", "attn_mask", "logit_scale", "logit_bias", "visual_projection",
    "input_resolution", "context_length", "vocab_size",
))  # fmt: skip
"""First words of what may stand beside a backbone in one file without being part of it."""
