"""What `pip install openvibe` brings is complete: the ten-line script runs from a wheel, far from any checkout."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.acceptance import script
from tests.acceptance.site import ENDED, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    # pip fetches the build backend unless it is there.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--wheel-dir", str(folder), *isolation]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = folder.glob("openvibe-*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh environment's Python: OpenVibe comes from the wheel, what it depends on from the present environment."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    own = str(folder / "bin" / "python")
    command = [sys.executable, "-m", "pip", "--python", own, "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    present = sysconfig.get_paths()["purelib"]
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "present.pth").write_text(f"{present}\n")
    # Its wheel puts this program beside Python.
    (folder / "bin" / "nats-server").symlink_to(Path(sys.executable).with_name("nats-server"))
    return own


@pytest.mark.timeout(240)
def test_the_ten_line_script_runs_from_the_wheel_and_its_curl_answers(python: str, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    port = script.hello(folder)
    with script.serving("hello.py", folder=folder, port=port, environ=script.environment(), python=python) as site:
        assert site.home == folder / ".openvibe"
        answer = script.curl(site, "/v1/operators/hello/activate", '{"trigger": "greet", "input": {}}')
        assert answer.status_code == 201, answer.text
        ended = site.wait_for(f"/operators/hello/runs/{answer.json()['run_id']}", *ENDED)
        assert ended["status"] == "completed"
        assert ended["output"]["greeting"]
        operators = site.call("GET", "/operators").json()["operators"]
        assert [operator["id"] for operator in operators] == ["hello"]
        _look_at_the_pages(site.url, script.session(site))
        children = script.living(site)
        assert len(children) >= 4
        site.process.send_signal(signal.SIGINT)
        assert site.process.wait(40) == 0, script.said(site)
        assert script.living(site) == []


def test_the_wheel_holds_what_the_site_reads_beside_its_code(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, target in (("templates", "openvibe_site/templates"), ("static", "openvibe_site/static")):
        files = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()]
        assert files
        assert [str(path) for path in files if f"{target}/{path}" not in names] == []
    for package in ("openvibe", "openvibe_site", "agents_ui", "operators"):
        files = [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert [str(path) for path in files if str(path.relative_to(ROOT)) not in names] == []
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "openvibe",
        "openvibe_site",
        "agents_ui",
        "operators",
    }


def test_the_command_is_installed_and_reads_the_shipped_operators(python: str, tmp_path: Path) -> None:
    command = str(Path(python).with_name("openvibe"))
    done = script.run([command, "summary"], environ=script.environment(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 operators, 22 workflows, 22 triggers, 80 nodes\n")


def test_the_wheel_asks_for_what_requirements_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [text for name, texts in project["optional-dependencies"].items() if name != "all" for text in texts]
    asked = {canonicalize_name(item.name): item for item in map(Requirement, [*project["dependencies"], *extras])}
    needed = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(item.name): item for item in map(Requirement, filter(_pins, lines))}
    # What builds the wheel is no part of it.
    pins = {name: pin for name, pin in pins.items() if name not in ("hatchling", "editables")}
    assert len(pins) > 20
    assert sorted(set(pins) - set(asked)) == []
    assert sorted(needed - set(pins)) == []
    for name, pin in pins.items():
        (version,) = pin.specifier
        assert asked[name].specifier.contains(version.version), f"{pin} is none of {asked[name]}"
        assert pin.extras <= asked[name].extras, name


def test_the_extra_all_has_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    (everything,) = extras.pop("all")
    assert Requirement(everything).extras == set(extras)
    assert {"anthropic", "openai", "nats", "redis", "temporal"} <= set(extras)


def _pins(line: str) -> bool:
    return re.match(r"[A-Za-z]", line) is not None


def _look_at_the_pages(url: str, cookie: str) -> None:
    with httpx.Client(headers={"Cookie": cookie}, trust_env=False, timeout=15, follow_redirects=True) as browser:
        for path in ("/agents/", "/agents/operators/hello/", "/v1/docs/"):
            assert browser.get(f"{url}{path}").status_code == 200, path
        page = browser.get(f"{url}/agents/").text
        files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
        assert files
        assert [name for name in files if browser.get(f"{url}{name}").status_code != 200] == []
