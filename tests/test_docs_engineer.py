"""The engineer's page as it stands: from good photos and a colleague's store to verdicts."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.sample.shot import SampleConfig
from pipeline.sample.write import write_sample

PAGE = Path(__file__).resolve().parents[1] / "docs" / "engineer.md"


def page_commands() -> list[list[str]]:
    """Give the commands of the page's console blocks, in order."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line) for line in re.findall(r"^\$ spg-pipe (.*)$", "".join(blocks), re.M)]


def lay_out_photos(folder: Path) -> None:
    """Put 20 good photos into `good`, and good and defective ones into `incoming`."""
    size = SampleConfig(image_size=96, images_per_category=6, train_images_per_category=20)
    write_sample(folder / "made", size)
    made = folder / "made" / "target" / "leather"
    shutil.copytree(made / "train" / "good", folder / "good")
    (folder / "incoming").mkdir()
    for photo in sorted((made / "test").glob("*/*.png")):
        shutil.copy(photo, folder / "incoming" / f"{photo.parent.name}-{photo.name}")


def test_the_six_commands_lead_from_photos_to_verdicts(
    small_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> Result:
        made = CliRunner().invoke(app, words)
        assert made.exit_code == 0, (words, made.output)
        return made

    lay_out_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_store.url, "colleague")
    run("name", small_store.guides.id, "leather-line", "--store", "colleague")
    run("push", "leather-line", "team", "--store", "colleague")
    monkeypatch.setenv("SPG_STORE", str(tmp_path / "mine"))

    commands = page_commands()
    printed = [run(*words).output for words in commands]

    assert [words[0] for words in commands] == [
        *("pull", "show", "predict", "calibrate", "predict", "push")
    ]
    assert "20 good parts: at most 14.0% false alarms with 95% confidence" in printed[3]
    verdicts = re.findall(r"^[\d.]+ +[\d.]+ +(normal|anomalous|unsure) ", printed[4], re.M)
    assert len(verdicts) == len(list(Path("incoming").iterdir()))
    assert len(list(Path("pictures").glob("*.png"))) == 2 * len(verdicts)
    detector = Path("team/guides") / small_store.guides.id
    assert [path.name for path in (detector / "thresholds").iterdir()] == ["line-3.json"]
