"""The console command: help, exit codes, one clear line for a failure."""

import re
import subprocess
import sys
import time
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anxin import cli, stack
from anxin.errors import AnxinError

if TYPE_CHECKING:
    from anxin.config import Settings

CONTRACT = (
    *("up", "demo", "ingest", "api", "worker", "bridge", "migrate", "doctor"),
    *("simulate", "replay", "train", "evaluate", "backup", "restore", "audit"),
    *("keys", "export", "erase"),
)
INSTALLED = [name for name, command in cli.COMMANDS.items() if util.find_spec(command.module)]


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the loggers of this process from writing to the stream of one test for ever."""
    monkeypatch.setattr(cli, "set_up_logs", lambda *_, **__: None)


def test_every_command_of_the_contract_is_known() -> None:
    assert set(cli.COMMANDS) == set(CONTRACT)


@pytest.mark.parametrize("name", INSTALLED)
def test_help_of_each_command_explains_and_exits_0(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"usage: anxin {name}" in said
    assert len(said) > 150


def test_help_names_the_installed_commands_and_loads_none_of_them() -> None:
    code = "import sys; from anxin import cli; cli.parser_for(['--help']); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"psycopg", "fastapi", "sklearn", "numpy", "paho", "httpx", "anxin.stack"}
    assert not heavy & set(loaded)
    text = cli.parser_for(["--help"]).format_help()
    assert all(re.search(rf"^ +{name} ", text, re.MULTILINE) for name in INSTALLED)


def test_help_comes_at_once() -> None:
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "anxin.cli", "--help"], check=True, stdout=-3)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 1.0


def test_command_whose_module_is_not_installed_is_not_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "train", cli.Command("models.not_there", "", ""))
    assert "train" not in cli.parser_for([]).format_help()
    with pytest.raises(SystemExit) as end:
        cli.main(["train"])
    assert end.value.code == 2


def test_unknown_command_exits_2() -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["dance"])
    assert end.value.code == 2


def test_bad_setting_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up", "--mqtt", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert said == "anxin: 'nowhere' is not host:port, for example 127.0.0.1:1883.\n"


def test_option_wins_over_variable_and_reaches_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def remember(_: object, settings: "Settings") -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr(stack, "run", remember)
    monkeypatch.setenv("ANXIN_HTTP", "127.0.0.1:1")
    monkeypatch.setenv("ANXIN_MQTT", "127.0.0.1:2")
    assert cli.main(["up", "--data-dir", str(tmp_path), "--http", "127.0.0.1:3"]) == 0
    assert (seen[0].http, seen[0].mqtt, seen[0].data_dir) == (
        "127.0.0.1:3",
        "127.0.0.1:2",
        str(tmp_path),
    )


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (AnxinError("Too bad. Try again."), 1, "anxin: Too bad. Try again.\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_failure_is_one_line_without_traceback(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(stack, "run", fail)
    assert cli.main(["up"]) == code
    assert capsys.readouterr().err == said


def test_migrate_without_a_database_that_answers_says_so(
    capsys: pytest.CaptureFixture[str], free_port: int
) -> None:
    assert cli.main(["migrate", "--database", f"postgresql://x@127.0.0.1:{free_port}/x"]) == 1
    assert re.fullmatch(
        r"anxin: The database does not answer\. Check .*\n", capsys.readouterr().err
    )
