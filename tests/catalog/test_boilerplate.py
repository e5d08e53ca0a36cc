"""What the catalogue costs to write, and that the workflow that stands beside it by hand does the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anthropic
import pytest

from benchmarks import baseline_lead_qualification as by_hand
from tests.catalog.stage import Stage
from tests.threads import serving

ROOT = Path(__file__).parents[2]
LEAD = {"contact_id": "", "company_name": "Linden", "lead_data": {"role": "Partner"}}


def counted(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "boilerplate.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for part in ("operators/catalog", "scripts", "benchmarks"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_catalogue_takes_at_least_sixty_per_cent_less_than_hand_wired_graphs():
    told = counted(ROOT)
    assert told.returncode == 0, told.stdout
    assert "22 workflows, hand-wired at 80 lines each: 1760 lines" in told.stdout
    assert "lead_qualification" in told.stdout


def test_workflows_that_grow_too_long_are_refused(copied: Path):
    module = copied / "operators" / "catalog" / "company_intel.py"
    nodes = "\n".join(f"        # line {number}" for number in range(200))
    module.write_text(module.read_text().replace("        @node\n", f"{nodes}\n        @node\n", 1))
    told = counted(copied)
    assert told.returncode == 1
    assert "make workflows shorter" in told.stdout


def test_blank_lines_are_not_counted(copied: Path):
    module = copied / "operators" / "catalog" / "company_intel.py"
    module.write_text(module.read_text().replace("        @node\n", "\n\n\n\n        @node\n"))
    assert counted(copied).stdout == counted(ROOT).stdout


# ── the workflow by hand ─────────────────────────────────────────────────────────────────────────────────────────────


class FakeAnthropic(ThreadingHTTPServer):
    """Gives its answers in order, each as one whole message."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[str] = []
        self.asked: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: FakeAnthropic

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": self.server.asked[-1]["model"],
            "content": [{"type": "text", "text": self.server.answers.pop(0)}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
        body = json.dumps(message).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hand(stage: Stage) -> Iterator[Callable[..., dict[str, Any]]]:
    """Play the workflow that is written by hand with these answers of the model."""
    with serving(FakeAnthropic()) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        with anthropic.Anthropic(api_key="sk-test", base_url=address) as client:

            def play(*answers: str) -> dict[str, Any]:
                server.answers = list(answers)
                return by_hand.qualify(LEAD, client=client)

            yield play


@pytest.mark.parametrize(
    ("fit", "level", "route"),
    [(90, 90, "sales"), (19, 100, "disqualify"), (20, 100, "nurture"), (60, 10, "education"), (500, 1, "education")],
)
def test_by_hand_and_by_ours_a_lead_goes_the_same_way(stage: Stage, hand, fit, level, route):
    score = {"fit": fit, "intent": level, "urgency": level, "reasoning": "Because.", "route": "sales"}
    theirs = hand("Profile.", *[json.dumps(score)] * 3)
    ours = stage.play("revenue_ops", "lead_qualification", LEAD, "Profile.", *[{"score": score}] * 3).output
    assert theirs["route"] == ours["route"] == route
    assert theirs["lead_score"] == ours["lead_score"]
    assert theirs["crm_updated"] is ours["crm_updated"] is False


def test_both_educate_a_lead_whose_scores_cannot_be_read(stage: Stage, hand):
    assert hand("Profile.", "no", "no", "no")["route"] == "education"


def test_both_ask_with_the_same_prompts(hand):
    prompts = ROOT / "operators" / "catalog" / "prompts" / "revenue_ops"
    assert by_hand.ENRICHMENT.strip() == (prompts / "lead_enrichment.md").read_text().strip()
    assert by_hand.SCORING.strip().startswith((prompts / "s1_lead_qualification.md").read_text().strip())
