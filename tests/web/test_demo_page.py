"""`make demo-page`: it starts, shows verdicts, ends cleanly, and says what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.programs import eventually, get, program

DEMO = Path(__file__).parents[2] / "examples/page/demo.py"


def test_demo_shows_the_page_until_it_is_interrupted(tmp_path: Path) -> None:
    program("prometheus")
    program("prometheus-node-exporter")
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(DEMO), "--no-browser"],
            stdout=file,
            stderr=file,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
    try:
        eventually("it runs", lambda: "Ctrl-C" in output.read_text())
        url = next(line.split()[-1] for line in output.read_text().splitlines() if "status page" in line)
        said = ("1 machine is missing", "1 target is down", "1 node is not declared")
        eventually(f"the page says {said}", lambda: all(one in get(url).decode() for one in said))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in left


def test_demo_names_the_programs_that_are_not_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO)], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 2
    assert "prometheus is not on PATH (Debian: apt install prometheus)" in done.stderr
    assert "prometheus-node-exporter is not on PATH" in done.stderr
