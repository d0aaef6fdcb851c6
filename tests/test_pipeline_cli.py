"""Whatever a user can cause is one line and an exit code: signals, streams, folders, homes."""

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from manifests.images import decode_image
from pipeline import cli
from pipeline.terminal.stopping import SIGNALS, TWICE
from spg_core.errors import DatasetError
from tests.tiny_images import write_images

ROOT = Path(__file__).resolve().parents[1]
_KEPT = "what is whole is kept, the same command goes on from there\n"
SAYS = {
    signal.SIGINT: f"stopped by Ctrl-C; {_KEPT}",
    signal.SIGTERM: f"stopped by SIGTERM; {_KEPT}",
    signal.SIGHUP: f"stopped by SIGHUP, as its terminal closed; {_KEPT}",
}

# Runs the command; a signal ($NUMBER, else Ctrl-C) comes as the module $INTERRUPT_AT is looked for,
# and Ctrl-C once more, as the first is about to be told, where $TWICE is set.
INTERRUPTED = """
import os, signal, sys
from pipeline import cli
number = int(os.environ.get("NUMBER", signal.SIGINT))
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)
def say(text):
    os.kill(os.getpid(), signal.SIGINT)
if "TWICE" in os.environ:
    cli._say = say
signal.signal(signal.SIGINT, signal.default_int_handler)  # CI may have it ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this one
sys.meta_path.insert(0, Interrupt())
cli.main()
"""


def run(*words, code=None, cwd=None, **options):
    start = ["-c", code] if code else ["-m", "pipeline.cli"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    environment = {name: value for name, value in environment.items() if value is not None}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, *start, *words]
    return subprocess.run(command, text=True, cwd=cwd, env=environment, check=False, **options)


@pytest.mark.parametrize(
    "module", ["typer", "pipeline.configs", "pipeline.commands.app", "cache.store", "numpy"]
)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_one_line_and_its_code_also_while_modules_are_imported(
    module, number, tmp_path
):
    words = ["table", "--scores", "x", "--store", str(tmp_path)]

    result = run(*words, code=INTERRUPTED, env={"INTERRUPT_AT": module, "NUMBER": str(number)})

    assert result.returncode == 128 + number, result.stderr
    assert result.stderr == SAYS[number]
    assert result.stdout == ""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_at_once_in_one_line_with_the_code_of_the_first(number, tmp_path):
    words = ["table", "--scores", "x", "--store", str(tmp_path)]
    when = {"INTERRUPT_AT": "cache.store", "NUMBER": str(number), "TWICE": "1"}

    result = run(*words, code=INTERRUPTED, env=when)

    assert result.returncode == 128 + number
    assert result.stderr == TWICE + "\n"


@pytest.mark.parametrize("second", SIGNALS)
def test_a_signal_as_the_interpreter_ends_changes_no_exit_code(second, tmp_path):
    code = f"""
import os, signal, sys
from pipeline import cli
class Last:
    def __del__(self):
        os.kill(os.getpid(), {int(second)})
signal.signal(signal.SIGINT, signal.default_int_handler)
kept = Last()
def stopped(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)
cli._check_current_folder = stopped
sys.last = kept
del kept
cli.main()
"""

    result = run("--version", code=code)

    assert result.returncode == 143
    assert result.stderr == SAYS[signal.SIGTERM]


def test_ctrl_c_while_a_dataclass_is_made_ends_with_130_and_not_by_the_signal(tmp_path):
    # dataclasses has Python run a text; `python -m` ends by a KeyboardInterrupt that passed there
    (tmp_path / "stopped.py").write_text("""
import signal
import pipeline.terminal.progress  # what is imported later makes dataclasses, too
from pipeline import cli
signal.signal(signal.SIGINT, signal.default_int_handler)
def stopped():
    exec("import os; os.kill(os.getpid(), 2)")
cli._check_current_folder = stopped
cli.main()
""")

    result = subprocess.run(
        [sys.executable, "-m", "stopped", "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert (result.returncode, result.stderr) == (130, SAYS[signal.SIGINT])


def test_a_block_that_holds_signals_is_done_whole_and_then_left():
    code = """
import os, signal
from pipeline.terminal import stopping
signal.signal(signal.SIGINT, signal.default_int_handler)
stopping.listen(stopping.stop)
try:
    with stopping.held():
        os.kill(os.getpid(), signal.SIGTERM)
        print("whole")
    print("went on")
except KeyboardInterrupt:
    print("left", stopping.exit_code())
with stopping.held():
    os.kill(os.getpid(), signal.SIGTERM)
    print("in time")
    os.kill(os.getpid(), signal.SIGTERM)
    print("too late")
"""

    result = run(code=code, env={"PYTHONUNBUFFERED": "1"})

    assert result.stdout.splitlines() == ["whole", "left 143", "in time"]
    assert (result.returncode, result.stderr) == (143, TWICE + "\n")


def test_a_ctrl_c_that_python_would_forget_ends_the_run():
    code = """
import os, signal
from pipeline.terminal import stopping
signal.signal(signal.SIGINT, signal.default_int_handler)
stopping.listen(stopping.stop)
class Left:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
Left()
print("went on")
"""

    result = run(code=code)

    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == SAYS[signal.SIGINT]


@pytest.mark.parametrize("words", [["--version"], ["-h"], ["cache", "ls", "--json"]], ids=str)
def test_a_full_disk_behind_stdout_is_one_line(words, tmp_path):
    (tmp_path / "spg-store").mkdir()
    with Path("/dev/full").open("w") as full:
        result = run(*words, stdout=full, cwd=tmp_path)

    assert result.returncode == 1
    assert result.stderr == ("error: cannot write to standard output (No space left on device)\n")


@pytest.mark.parametrize("words", [["--version"], ["-h"], ["cache", "ls", "--json"]], ids=str)
def test_a_closed_pipe_is_one_line(words, tmp_path):
    (tmp_path / "spg-store").mkdir()
    reader, writer = os.pipe()
    os.close(reader)
    result = run(*words, stdout=writer, cwd=tmp_path)
    os.close(writer)

    assert result.returncode == 1
    assert result.stderr == "error: standard output was closed before everything was printed\n"


@pytest.mark.parametrize("lost", ["2>/dev/full", "2>&-", "2>&1 >out | true"])
def test_a_run_whose_remarks_nobody_hears_is_done_all_the_same(small_store, tmp_path, lost):
    store = shutil.copytree(small_store.url, tmp_path / "store")
    words = ["fit-guides", "--sae", small_store.sae.id, "--epochs", "3", "--store", str(store)]
    typed = " ".join([sys.executable, "-m", "pipeline.cli", *words])
    shell = f"set -o pipefail; {typed} {lost if 'out' in lost else '>out ' + lost}"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SPG_PROGRESS_SECONDS": "0.1"}

    result = subprocess.run(["bash", "-c", shell], env=env, cwd=tmp_path)

    assert result.returncode == 0
    made = (tmp_path / "out").read_text().splitlines()[-1]
    assert (Path(made) / "guides.json").is_file()


def test_without_any_streams_the_exit_code_still_tells(tmp_path):
    words = [sys.executable, "-m", "pipeline.cli", "cache", "info", "x", "--store", str(tmp_path)]
    shell = " ".join(words) + " <&- >&- 2>&-"

    result = subprocess.run(shell, shell=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    assert result.returncode == 1


def test_a_current_folder_that_is_gone_is_one_line(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; os.rmdir(os.getcwd()); from pipeline import cli; cli.main()"

    result = run("table", "--scores", "x", code=code, cwd=gone)

    assert result.returncode == 1
    assert result.stderr == (
        "error: the current folder is gone (No such file or directory); change to another one\n"
    )


def test_an_error_of_the_system_names_the_file(monkeypatch, capsys):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", "/mnt/team/x")

    monkeypatch.setattr("cache.store.open_store", fail)

    with pytest.raises(SystemExit) as ended:
        cli.main(["table", "--scores", "x"])

    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: /mnt/team/x: Permission denied\n"


def test_names_that_are_not_text_are_printed_all_the_same(tmp_path):
    scores = os.fsdecode(b"\xff")

    result = run("predict", "--guides", "g", scores, "--store", str(tmp_path))

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1


def test_a_user_without_a_home_is_no_reason_to_fail(tmp_path):
    # as in a container that runs under a number nobody gave a name
    code = """
import pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
from pipeline import cli
cli.main()
"""
    write_images(tmp_path / "images", n_good=2, n_bad=1)
    words = ["extract", "--backbone", "gabor", "--dataset", "mvtec", "--image-size", "32"]
    words += ["--root", str(tmp_path / "images"), "--store", str(tmp_path / "store")]

    result = run(*words, code=code, env={"HOME": None, "XDG_CACHE_HOME": None, "USER": None})

    assert result.returncode == 0, result.stderr


def test_the_command_does_not_print_what_pillow_warns_of():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "JPEG")
    data = buffer.getvalue()
    torn = b"Exif\0\0MM\0*" + b"\xff" * 8
    data = data[:2] + b"\xff\xe1" + (len(torn) + 2).to_bytes(2, "big") + torn + data[2:]
    with pytest.raises(DatasetError, match="Corrupt EXIF"):  # warnings are errors here
        decode_image(data, "a.jpg")

    with pytest.raises(SystemExit):
        cli.main(["--version"])

    assert decode_image(data, "a.jpg").size == (40, 40)
