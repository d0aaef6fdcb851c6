"""Presets with two narrow blocks, for tests that go through all four; import `shrunk`."""

import functools

import pytest

WIDTH, DEPTH, N_HEADS = 64, 2, 1


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the presets with two narrow blocks; patches, sizes and grids are the real ones."""
    import timm
    from open_clip import factory

    small = functools.partial(
        timm.create_model, embed_dim=WIDTH, depth=DEPTH, num_heads=N_HEADS, mlp_ratio=4
    )
    monkeypatch.setattr(timm, "create_model", small)
    name = "ViT-L-14-336-quickgelu"
    real = factory._MODEL_CONFIGS[name]
    vision = {**real["vision_cfg"], "width": WIDTH, "layers": DEPTH}
    monkeypatch.setitem(
        factory._MODEL_CONFIGS, name, {**real, "embed_dim": WIDTH * 3 // 4, "vision_cfg": vision}
    )
