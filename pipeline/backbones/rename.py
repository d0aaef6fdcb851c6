"""Tensors by the names that a model's library expects, from whatever names a file has."""

import re
from collections.abc import Collection, Mapping
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor

from pipeline.backbones.key_names import BESIDE, HEADS, NAMINGS, Form, Naming, Rules
from pipeline.backbones.weights import some
from spg_core.errors import BackboneError

Tensors = Mapping[str, Tensor]


def backbone_tensors(
    state: Tensors, form: Form, wanted: Collection[str], where: Path | str
) -> dict[str, Tensor]:
    """Pick the backbone out of a file's tensors, by the names that its library expects.

    Args:
        state: all tensors of the file.
        form: `openai` where nothing else will do; with `timm` both are taken, since timm knows
            OpenAI's names.
        wanted: the model's own names; heads that are not among them are left out.
        where: the file, for the message.

    Returns: float32 for tensors of floats, whatever the file stores; of OpenAI's names those that
        begin with `visual.`.

    Raises:
        BackboneError: there is no backbone in the file, or several, or something besides it that
            is no head and no known part of training.
    """
    found = _find(state, where)
    if found is None and form == "timm":  # perhaps one of the many that timm itself knows
        return {name: _float(tensor) for name, tensor in state.items()}
    naming, prefix = _required(found, form, state, where)
    below = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    below |= _beside(state, naming, prefix, where)
    if naming.rules is not None:
        below = _renamed(below, {**naming.rules, **naming.beside}, where, naming.who)
    kept = {
        re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", name): tensor  # Meta's blocks in chunks
        for name, tensor in below.items()
        if name in wanted or name.partition(".")[0] not in HEADS
    }
    _refuse_quantised(kept, where)
    _refuse_infinite(kept, where)
    start = "visual." if naming.form == "openai" else ""
    return {start + name: _float(tensor) for name, tensor in kept.items()}


def _required(
    found: tuple[Naming, str] | None, form: Form, state: Tensors, where: Path | str
) -> tuple[Naming, str]:
    """Refuse names that the library would not know."""
    if found is None:
        raise BackboneError(
            f"{where} holds no vision transformer: its tensors are called {some(state)}; expected "
            "the names of timm, Meta, OpenAI or transformers"
        )
    if form == "openai" and found[0].form != form:
        raise BackboneError(
            f"{where} has {found[0].who} names for a vision transformer; expected those of OpenAI, "
            "open_clip or transformers' CLIP. For a timm model use --backbone timm:<model>"
        )
    return found


def _refuse_quantised(state: Tensors, where: Path | str) -> None:
    found = [
        f"{name} of {tensor.dtype}"
        for name, tensor in state.items()
        if name.endswith((".weight", ".bias")) and not tensor.is_floating_point()
    ]
    if found:
        raise BackboneError(f"{where} is quantised ({some(found)}); give the unquantised one")


def _refuse_infinite(state: Tensors, where: Path | str) -> None:
    """Refuse numbers that float16 cut off, that a training lost, or that never were."""
    found = [
        name
        for name, tensor in state.items()
        if tensor.is_meta
        or (tensor.is_floating_point() and not bool(_float(tensor).isfinite().all()))
    ]
    if found:
        raise BackboneError(
            f"{where} holds NaN, infinity or no numbers at all ({some(found)}); give weights of a "
            "training that went well, or that were saved in float32"
        )


def _find(state: Tensors, where: Path | str) -> tuple[Naming, str] | None:
    """Tell how a file's tensors are named, and what stands before their names."""
    for naming in NAMINGS:
        prefixes = [
            name.removesuffix(naming.anchor)
            for name in state
            if name == naming.anchor or name.endswith(f".{naming.anchor}")
        ]
        if naming.needs is not None:
            prefixes = [prefix for prefix in prefixes if prefix + naming.needs in state]
        averaged = [
            prefix for prefix in prefixes if re.search(r"teacher|(^|[._])ema([._]|$)", prefix)
        ]
        chosen = averaged or prefixes
        if len(chosen) > 1:
            they = some([f"{prefix}{naming.anchor}" for prefix in chosen])
            raise BackboneError(
                f"{where} holds {len(chosen)} vision transformers ({they}); save the one that is "
                "meant on its own"
            )
        if chosen:
            return naming, chosen[0]
    return None


def _beside(state: Tensors, naming: Naming, prefix: str, where: Path | str) -> dict[str, Tensor]:
    """Give what belongs to a backbone from beside its prefix; refuse what is not known."""
    taken, unknown = {}, []
    copies = [name.removesuffix(naming.anchor) for name in state if name.endswith(naming.anchor)]
    others = tuple(copy for copy in copies if copy not in ("", prefix))
    parts = prefix.split(".")[:-1]
    for name in state:
        if name.startswith((prefix, *others)):
            continue  # others: what the averaged one was averaged from
        words = name.split(".")
        n_shared = sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(words, parts, strict=False))
        )
        rest = ".".join(words[n_shared:])
        if rest in naming.beside:
            taken[rest] = state[name]
        elif rest.partition(".")[0] not in BESIDE:
            unknown.append(name)
    if unknown:
        raise BackboneError(
            f"{where}: beside the backbone ({prefix}*) there are tensors that are no known head "
            f"or part of training: {some(unknown)}; save the backbone on its own"
        )
    return taken


def _renamed(state: Tensors, rules: Rules, where: Path | str, who: str) -> dict[str, Tensor]:
    """Follow the rules of one way of naming."""
    renamed: dict[str, Tensor] = {}
    stacks: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name, tensor in state.items():
        ours = _follow(name, rules)
        if ours is None:
            if name.partition(".")[0] not in HEADS:
                unknown.append(name)
        elif not ours:
            continue
        elif (part := re.search(r"\[(q|k|v)\]", ours)) is not None:
            stacks.setdefault(ours.replace(part[0], ""), {})[part[1]] = tensor
        elif ours.endswith("^T"):
            renamed[ours.removesuffix("^T")] = tensor.T
        else:
            renamed[ours] = tensor[None] if ours == "pos_embed" and tensor.ndim == 2 else tensor
    if unknown:
        raise BackboneError(
            f"{where} has {who} names, and others that do not belong to it: {some(unknown)}; "
            "give the weights of this very model"
        )
    return renamed | {name: _stacked(parts) for name, parts in stacks.items()}


def _follow(name: str, rules: Rules) -> str | None:
    """Give our name for one of theirs, None where no rule speaks of it."""
    number = re.search(r"\.(\d+)\.", f".{name}")
    pattern = re.sub(r"(^|\.)\d+\.", r"\1N.", name.removeprefix("model."), count=1)
    stem, dot, last = pattern.rpartition(".")
    ours = rules.get(pattern)
    if ours is None and dot and last in ("weight", "bias") and stem in rules:
        ours = f"{rules[stem]}.{last}"
    return ours if ours is None or number is None else ours.replace(".N.", f".{number[1]}.")


def _stacked(parts: Mapping[str, Tensor]) -> Tensor:
    """Stack query, key and value; one that is absent is a bias of zeros, as DINOv3's keys have."""
    some = next(iter(parts.values()))
    return torch.cat([parts.get(part, torch.zeros_like(some)) for part in "qkv"])


def _float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
