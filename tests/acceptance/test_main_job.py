"""The main job over REST: activate, watch, approve, get the result."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.acceptance.site import ENDED, Site


def test_research_runs_to_its_report_and_tells_what_it_used(site: Site) -> None:
    run = site.start_run("company_intel", "query", {"company_name": "Stripe"})
    ended = site.wait_for(run, *ENDED)
    assert ended["status"] == "completed"
    assert ended["output"]["report"].startswith("## Company intelligence: Stripe")
    assert ended["output"]["prospect_quality"] in {"high", "medium", "low"}
    assert ended["metrics"]["nodes_executed"] == 4
    assert ended["metrics"]["llm_calls"] == 2
    assert ended["metrics"]["tokens_out"] > 0
    assert [event["seq"] for event in site.events(run)] == list(range(1, len(site.events(run)) + 1))


def test_engagement_waits_at_its_gate_and_ends_after_an_approval_with_edits(site: Site) -> None:
    run = site.start_run("revenue_ops", "lead_qualified")
    waiting = site.wait_for(run, "waiting", *ENDED)
    (gate,) = waiting["waits"]
    edited = gate["payload"]["personalized_sequence"]
    edited[0]["subject"] = "A subject that a person chose"
    answer = site.call(
        "POST",
        f"{run}/resume",
        {
            "decision": "approve",
            "notes": "With one change",
            "wait_id": gate["id"],
            "version": gate["version"],
            "payload_sha256": gate["payload_sha256"],
            "values": {"personalized_sequence": edited},
        },
    )
    assert answer.status_code == 200, answer.text
    ended = site.wait_for(run, *ENDED)
    assert ended["status"] == "completed"
    assert ended["output"]["final_plan"]["sequence"][0]["subject"] == "A subject that a person chose"
    decided = next(event for event in site.events(run) if event["type"] == "gate.decided")
    assert decided["actor"] == "admin"
    assert decided["data"]["notes"] == "With one change"


def test_a_rejected_gate_fails_its_run_with_the_reason(site: Site) -> None:
    run = site.start_run("revenue_ops", "engagement")
    site.wait_for(run, "waiting", *ENDED)
    site.call("POST", f"{run}/resume", {"decision": "reject", "notes": "Too pushy"})
    ended = site.wait_for(run, *ENDED)
    assert ended["status"] == "failed"
    assert "Too pushy" in ended["error"]["message"]


def test_twenty_approvals_at_once_decide_once(site: Site) -> None:
    run = site.start_run("revenue_ops", "engagement")
    gate = site.wait_for(run, "waiting", *ENDED)["waits"][0]
    body = {"decision": "approve", "wait_id": gate["id"], "version": 1, "payload_sha256": gate["payload_sha256"]}
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: site.call("POST", f"{run}/resume", body).status_code, range(20)))
    assert set(answers) == {200}
    assert site.wait_for(run, *ENDED)["status"] == "completed"
    assert [event["type"] for event in site.events(run)].count("gate.decided") == 1


def test_a_cancelled_run_stops_and_closes_its_gate(site: Site) -> None:
    run = site.start_run("revenue_ops", "engagement")
    site.wait_for(run, "waiting", *ENDED)
    answer = site.call("DELETE", run)
    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    assert answer.json()["waits"][0]["status"] == "cancelled"
    assert site.call("DELETE", run).status_code == 409
    assert site.call("POST", f"{run}/resume", {"decision": "approve"}).status_code == 409
