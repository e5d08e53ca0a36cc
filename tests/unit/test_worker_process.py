"""What a worker's process wants of Python, seen in one that the supervisor's command line has started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from openvibe_site import COLLECT_AT, commands, env

#: A module of operators is read by every worker before it hears its first bell.
PROBE = """
import gc
import os
import signal
from pathlib import Path

from celery.signals import worker_ready

from openvibe import node, operator, workflow


@worker_ready.connect(weak=False)
def tell(**_):
    Path("told").write_text(repr(gc.get_threshold()))
    os.kill(os.getpid(), signal.SIGTERM)


@operator(id="probe")
class Probe:
    @workflow(id="idle")
    class Idle:
        @node
        def rest(self, state): ...
"""


def test_a_worker_looks_for_garbage_as_seldom_as_a_site_wants(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    own = {"OPENVIBE_HOME": str(tmp_path / "home"), "OPENVIBE_OPERATORS": "./probe.py"}
    own["PYTHONPATH"] = str(env.CODE_ROOT)
    settings = {"DJANGO_SETTINGS_MODULE": "openvibe_site.settings", "NATS_URL": "nats://127.0.0.1:1"}
    environ = {**os.environ, **own, **settings}
    command = commands.worker(2, env.read(environ))
    ended = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (tmp_path / "told").exists(), ended.stderr
    assert (tmp_path / "told").read_text() == repr(COLLECT_AT)
