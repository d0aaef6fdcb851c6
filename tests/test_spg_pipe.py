"""spg_pipe: the names that stay, called as from a notebook."""

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import spg_pipe as spg
from pipeline.configs import FitSaeConfig
from spg_core.errors import ConfigError

ROOT = Path(spg.__file__).parent
SMALL = {"epochs": 1, "images_per_step": 4}


def python(code, folder, *words):
    return subprocess.run(
        [sys.executable, *(words or ("-c", code))],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )


@pytest.mark.parametrize("name", spg.__all__)
def test_every_name_is_there_and_explained(name):
    found = getattr(spg, name)

    assert name in dir(spg)
    assert isinstance(found, str) or inspect.getdoc(found)


def test_a_name_that_is_none_is_refused():
    with pytest.raises(AttributeError, match="spg_pipe has no 'fit_sea'; it has SpgError"):
        spg.fit_sea  # noqa: B018


def test_import_takes_nothing_and_a_stage_no_torch_before_it_runs(tmp_path):
    code = (
        "import sys, spg_pipe as spg\n"
        "assert not {'numpy', 'torch', 'pipeline', 'cache'} & set(sys.modules)\n"
        "spg.predict, spg.score, spg.open_store\n"
        "assert 'torch' not in sys.modules"
    )

    assert python(code, tmp_path).stderr == ""


def test_the_whole_way_in_plain_arguments(small_store, tmp_path):
    store = spg.open_store(small_store.url)
    sae = spg.fit_sae(store, dataset="aux", backbone="gabor", width=np.int64(24), k=3, **SMALL)
    guides = spg.fit_guides(small_store.url, sae=sae.id, ema=0, **SMALL)
    scores = spg.score(Path(small_store.url), guides=guides.id, dataset="target")
    table = spg.table(store, scores=scores.id, out=tmp_path / "t.csv")
    images = sorted((small_store.images / "target").rglob("test/*/*.png"))[:3]
    found = spg.predict(store, images, guides=guides.id, threshold=0.5)

    assert sae.document.config.width == 24
    assert scores.document.parents.guides == guides.id
    assert (tmp_path / "t.csv").read_text().startswith("section,")
    assert list(table.to_pandas()["kind"]).count("mean") == 1
    assert [one.path for one in found] == [str(image) for image in images]
    assert found.to_pandas()["score"].between(0, 1).all()
    assert list(scores.to_pandas()["category"]) == sorted(scores.document.categories)
    for one in (sae, guides, scores, table, found):
        assert str(one)
        assert len(repr(one).splitlines()) <= 5


def test_a_sweep_takes_lists_or_one_value(small_store):
    made = spg.sweep(
        small_store.url,
        **{"aux": "aux", "target": "target", "backbone": "gabor", "width": [16, 24], "k": 2},
        vary=["sae.epochs=1", "sae.images_per_step=4", "guides.epochs=1"],
    )

    assert list(made.to_pandas()["width"]) == [16, 24]
    assert "2 of 2 points" in repr(made)


def test_tokens_are_at_hand(small_store):
    cache = spg.open_cache(small_store.url, "aux", "gabor")
    batch = next(iter(spg.token_batches(cache, order="tokens", batch=5, seed=1, epoch=0)))
    lazy = spg.as_dask_array(cache)
    detector = spg.load_detector(small_store.url, small_store.guides.id)

    assert batch.shape == (5, cache.d_model)
    assert lazy.shape == (cache.n_images, cache.tokens_per_image, cache.d_model)
    assert repr(cache).startswith(f"TokenCache {cache.key}: {cache.n_images} images x ")
    assert repr(detector).startswith(f"Detector {small_store.guides.id}: tokens of gabor, 96 x 96")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "--k is 0; it must be a whole number, 1 to"),
        ({"k": 2.5}, "--k is 2.5; it must be a whole number"),
        ({"widht": 8}, "fit_sae has no option 'widht'; did you mean 'width'"),
        ({"dataset": ""}, "--dataset is ''; it must be text, not empty"),
        ({"recipe": "mine"}, "recipe is 'released' or 'paper', got 'mine'"),
    ],
)
def test_wrong_options_are_refused_before_the_store_is_opened(given, message):
    with pytest.raises(ConfigError, match=message):
        spg.fit_sae("/nowhere", **{"dataset": "aux", "backbone": "gabor", **given})


def test_what_must_be_given_is_asked_for():
    with pytest.raises(ConfigError, match="dataset, backbone must be given"):
        spg.fit_sae("store")
    with pytest.raises(ConfigError, match="fit_sae takes store by place and the rest by name"):
        spg.fit_sae()
    with pytest.raises(ConfigError, match="predict takes store, images by place"):
        spg.predict("store", "image.png", "latest")


def test_a_signature_shows_the_options_with_the_commands_defaults():
    signature = inspect.signature(spg.fit_sae)

    assert list(signature.parameters)[:3] == ["store", "dataset", "backbone"]
    assert signature.parameters["width"].default == FitSaeConfig.width
    assert "width: Atoms in the dictionary, C. (1 to" in inspect.getdoc(spg.fit_sae)
    assert list(inspect.signature(spg.predict).parameters)[:2] == ["store", "images"]


@pytest.mark.parametrize("name", ["cache", "pipeline", "manifests", "spg_core"])
def test_a_file_of_the_users_that_hides_a_package_is_named(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("mine = 1\n")

    used = python("import spg_pipe as spg\nspg.open_store('x')", tmp_path)
    command = python("", tmp_path, "-m", "spg_pipe", "--help")

    for result in (used, command):
        last = result.stderr.splitlines()[-1]
        assert result.returncode == 1
        assert f"spg-pipe needs its package {name!r}, but in its place Python finds" in last
        assert str(tmp_path / f"{name}.py") in last
    assert command.stderr.count("\n") == 1


def test_the_module_is_the_command(tmp_path):
    assert python("", tmp_path, "-m", "spg_pipe", "-V").stdout == spg.__version__ + "\n"
    assert python("", tmp_path, "-m", "spg_pipe", "nosuch").returncode == 2


@pytest.mark.parametrize("package", ["pipeline", "spg_core", "cache", "manifests"])
def test_a_package_says_that_it_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()


def test_an_editable_install_copies_nothing():
    # A copy of spg_pipe.py beside a path to the packages would take those for somebody else's.
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert "force-include" not in wheel
    assert "spg_pipe.py" in wheel["only-include"]


def test_the_installed_command_starts_from_any_folder(tmp_path):
    command = Path(sys.executable).with_name("spg-pipe")

    done = subprocess.run([command, "-V"], cwd=tmp_path, capture_output=True, text=True)

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, spg.__version__, "")


def test_a_detector_is_pushed_and_pulled_from_a_notebook(small_store, tmp_path):
    guides, team, empty = f"guides/{small_store.guides.id}", tmp_path / "team", tmp_path / "empty"

    pushed = spg.push(small_store.url, guides, team)
    pulled = spg.pull(spg.open_store(empty), guides, source=team, with_tokens=False)

    assert [one.artifact for one in pushed.artifacts] == [f"saes/{small_store.sae.id}", guides]
    assert [one.artifact for one in pulled.artifacts] == [one.artifact for one in pushed.artifacts]
    assert spg.load_detector(empty, small_store.guides.id)
