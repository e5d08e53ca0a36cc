"""A real browser does what a new user does."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.acceptance import chromium
from tests.acceptance.chromium import sign_in
from tests.acceptance.site import ENDED, Site, until
from tests.acceptance.test_agents import AGENTS, agent
from tests.acceptance.test_cg_agents import ended, external

pytestmark = chromium.NEEDED


def _start(page: Page, site: Site, operator: str, workflow: str) -> str:
    """Start a workflow with what its form already holds; returns the path of the run."""
    page.goto(f"{site.url}/agents/operators/")
    page.goto(f"{site.url}/agents/operators/{operator}/{workflow}/runs/")
    page.get_by_role("button", name=re.compile("^Run")).click()
    expect(page).to_have_url(re.compile(r"/agents/run_[^/]+/$"))
    return f"/operators/{operator}/runs/{page.url.rstrip('/').rpartition('/')[2]}"


def test_a_new_user_runs_engagement_watches_it_and_approves_its_gate(page: Page, site: Site) -> None:
    sign_in(page, site)
    run = _start(page, site, "revenue_ops", "engagement")
    live = page.url
    # The first step is shown and speaks before it is done, without a reload.
    expect(page.locator("[id^=words-]").first).not_to_be_empty(timeout=15_000)
    expect(page.locator("#live-state")).to_contain_text("Live")
    approve = page.get_by_role("button", name="Approve", exact=True)
    expect(approve).to_be_visible(timeout=60_000)
    assert site.read(run)["status"] == "waiting"
    page.get_by_label(re.compile("note", re.IGNORECASE)).first.fill("Reads well")
    approve.dblclick()
    expect(page.locator("#run-head")).to_contain_text("Completed", timeout=30_000, ignore_case=True)
    assert page.url == live
    expect(page.locator("#timeline")).to_contain_text("Reads well")
    assert [event["type"] for event in site.events(run)].count("gate.decided") == 1
    _shows_all(page, site, run)
    shown = _items(page)
    page.reload()
    assert _items(page) == shown


def test_an_edit_at_the_approvals_page_reaches_the_result(page: Page, site: Site) -> None:
    sign_in(page, site)
    run = site.start_run("revenue_ops", "engagement")
    gate = site.wait_for(run, "waiting", *ENDED)["waits"][0]
    page.goto(f"{site.url}/agents/approvals/")
    card = page.locator(f"#gate-{gate['id']}-1")
    card.get_by_role("button", name=re.compile("^Edit")).click()
    card.get_by_label(re.compile("subject", re.IGNORECASE)).first.fill("A subject from the browser")
    card.get_by_role("button", name=re.compile("^Approve with")).click()
    ended = site.wait_for(run, *ENDED)
    assert ended["status"] == "completed", ended["error"]
    assert ended["output"]["final_plan"]["sequence"][0]["subject"] == "A subject from the browser"


def test_a_page_stays_useful_when_a_gate_is_asked_anew(page: Page, site: Site) -> None:
    sign_in(page, site)
    run = site.start_run("revenue_ops", "engagement")
    gate = site.wait_for(run, "waiting", *ENDED)["waits"][0]
    address = f"{site.url}/agents/{run.rpartition('/')[2]}/"
    page.goto(address)
    page.get_by_label(re.compile("note", re.IGNORECASE)).fill("Half a note")
    deaf = page.context.new_page()
    deaf.add_init_script("window.WebSocket = class {}")
    deaf.goto(address)
    approve = deaf.get_by_role("button", name="Approve", exact=True)
    expect(approve).to_be_visible()
    values = {"personalized_sequence": gate["payload"]["personalized_sequence"][:1]}
    asked = {"wait_id": gate["id"], "version": 1, "values": values, "reason": "One will do"}
    assert site.call("POST", f"{run}/overrides", asked).status_code == 200
    # Whoever hears of it reads the new question, and keeps what he has written so far.
    expect(page.locator(f"#gate-{gate['id']}-2")).to_contain_text("One will do")
    expect(page.get_by_label(re.compile("note", re.IGNORECASE))).to_have_value("Half a note")
    # Whoever does not is refused once, and decides about what he is shown then.
    approve.click()
    expect(deaf.locator("#run-gate")).to_contain_text("What you saw has changed since")
    approve.click()
    assert site.wait_for(run, *ENDED)["status"] == "completed"


def test_what_somebody_is_changing_outlives_a_gate_that_is_asked_anew(page: Page, site: Site) -> None:
    sign_in(page, site)
    run = site.start_run("revenue_ops", "engagement")
    gate = site.wait_for(run, "waiting", *ENDED)["waits"][0]
    page.goto(f"{site.url}/agents/{run.rpartition('/')[2]}/")
    page.get_by_role("button", name="Edit", exact=True).click()
    first, last = page.get_by_label("Subject").first, page.get_by_label("Subject").last
    first.fill("Half a subject")
    last.fill("The last subject")
    page.locator("[data-drop]").nth(1).check()
    # Another value was changed: what is being written stands where it was.
    override = {"wait_id": gate["id"], "version": 1, "values": {"segment": "elsewhere"}, "reason": "Moved"}
    assert site.call("POST", f"{run}/overrides", override).status_code == 200
    expect(page.locator(f"#gate-{gate['id']}-2")).to_contain_text("Moved")
    expect(first).to_have_value("Half a subject")
    expect(page.locator("[data-drop]").nth(1)).to_be_checked()
    expect(page.locator("[data-drop]").nth(1)).to_be_focused()
    # This very value was changed: it is shown as it is now, and what was written can still be read.
    sequence = gate["payload"]["personalized_sequence"][:1]
    override |= {"version": 2, "values": {"personalized_sequence": sequence}, "reason": "One will do"}
    assert site.call("POST", f"{run}/overrides", override).status_code == 200
    anew = page.locator(f"#gate-{gate['id']}-3")
    expect(anew).to_contain_text("One will do")
    expect(first).to_have_value(sequence[0]["subject"])
    expect(anew.get_by_role("alert")).to_contain_text("Half a subject")
    expect(anew.get_by_role("alert")).to_contain_text("The last subject")
    page.evaluate("document.dispatchEvent(new CustomEvent('htmx:load', { detail: { elt: document.body } }))")
    expect(anew.get_by_role("alert")).to_have_count(1)
    first.fill("A whole subject")
    page.get_by_role("button", name="Approve with changes").click()
    ended = site.wait_for(run, *ENDED)
    assert ended["status"] == "completed", ended["error"]
    assert [touch["subject"] for touch in ended["output"]["final_plan"]["sequence"]] == ["A whole subject"]


@pytest.mark.parametrize("pressed", [True, False], ids=["sent", "still writing"])
def test_what_somebody_has_written_is_there_again_when_he_had_to_sign_in_anew(
    page: Page, site: Site, pressed: bool
) -> None:
    sign_in(page, site)
    run = site.start_run("revenue_ops", "engagement")
    site.wait_for(run, "waiting", *ENDED)
    address = f"{site.url}/agents/{run.rpartition('/')[2]}/"
    page.goto(address)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_label("Subject").first.fill("A subject of mine")
    page.get_by_label("Note").fill("Half a note")
    page.context.clear_cookies(name="sessionid")
    if pressed:
        page.get_by_role("button", name="Approve with changes").click()
    else:
        # Any part of the page that asks for something leads to the sign-in.
        page.evaluate("htmx.ajax('GET', '/agents/approvals/count/')")
    expect(page).to_have_url(re.compile(r"/signin/\?next="))

    sign_in(page, site)
    page.goto(address)

    expect(page.get_by_label("Note")).to_have_value("Half a note")
    expect(page.get_by_label("Subject").first).to_have_value("A subject of mine")
    page.get_by_role("button", name="Approve with changes").click()
    ended = site.wait_for(run, *ENDED)
    assert ended["output"]["final_plan"]["sequence"][0]["subject"] == "A subject of mine"


def test_what_somebody_has_written_is_for_nobody_else_who_signs_in(page: Page, site: Site) -> None:
    sign_in(page, site)
    run = site.start_run("revenue_ops", "engagement")
    site.wait_for(run, "waiting", *ENDED)
    address = f"{site.url}/agents/{run.rpartition('/')[2]}/"
    page.goto(address)
    page.get_by_label("Note").fill("Half a note")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page).to_have_url(re.compile(r"/signin/\?next="))
    sign_in(page, site)
    # As it is where somebody else has signed in.
    page.route(address, lambda route: _drawn_for(route, "0"))
    page.goto(address)
    expect(page.get_by_label("Note")).to_have_value("")
    page.unroute(address)
    page.goto(address)
    expect(page.get_by_label("Note")).to_have_value("Half a note")
    page.reload()
    expect(page.get_by_label("Note")).to_have_value("")


def test_what_somebody_sent_with_a_form_is_there_again_when_he_had_to_sign_in_anew(page: Page, site: Site) -> None:
    sign_in(page, site)
    address = f"{site.url}/agents/operators/company_intel/research/runs/"
    page.goto(address)
    field = page.get_by_label("Company")
    example = field.input_value()
    field.fill("A company of mine")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page).to_have_url(re.compile(r"/signin/\?next="))
    sign_in(page, site)
    page.goto(address)

    expect(field).to_have_value("A company of mine")

    page.get_by_role("button", name="Run", exact=True).click()
    expect(page).to_have_url(re.compile(r"/agents/run_[^/]+/$"))
    page.goto(address)
    expect(field).to_have_value(example)


def _drawn_for(route: Route, user: str) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, body=re.sub(r'data-user="\d+"', f'data-user="{user}"', answer.text()))


def test_discarding_changes_that_were_refused_brings_back_what_is_asked(page: Page, site: Site) -> None:
    sign_in(page, site)
    run = site.start_run("revenue_ops", "engagement")
    gate = site.wait_for(run, "waiting", *ENDED)["waits"][0]
    # Browsers tell of an answer of 422 as of an error.
    tab = page.context.new_page()
    tab.goto(f"{site.url}/agents/{run.rpartition('/')[2]}/")
    tab.get_by_role("button", name="Edit", exact=True).click()
    subject = tab.get_by_label("Subject").first
    subject.fill("Half a subject")
    tab.locator("[data-drop]").first.check()
    # The browser itself would not send what does not fit.
    tab.locator(".gate-form").evaluate("form => { form.noValidate = true }")
    tab.get_by_label("Wait days").last.fill("99")
    tab.get_by_label("Note").fill("Half a note")
    with tab.expect_response(re.compile("/gates/")) as answer:
        tab.get_by_role("button", name="Approve with changes").click()
    assert answer.value.status == 422
    tab.get_by_role("button", name="Discard changes").click()
    tab.get_by_role("button", name="Edit", exact=True).click()
    expect(subject).to_have_value(gate["payload"]["personalized_sequence"][0]["subject"])
    expect(tab.locator("[data-drop]").first).not_to_be_checked()
    expect(tab.get_by_label("Note")).to_have_value("Half a note")


WORD = "Donaudampfschifffahrtsgesellschaftskapitaenskajuetentuerschluesselloch"
WIDE = f"""
operators:
  - id: wide
    name: {WORD}
    description: About {WORD}
    fields: {{name: str}}
    workflows:
      - id: ask
        name: {WORD}
        inputs: [name]
        sample_input: {{name: {WORD}}}
        nodes:
          - {{id: look, type: gate, prompt: "See https://example.org/{WORD}", shows: [name], edits: [name]}}
"""


def test_long_words_do_not_widen_a_page_on_a_phone(page: Page, site: Site) -> None:
    headers = {"Authorization": f"Bearer {site.token}"}
    answer = httpx.post(f"{site.url}/v1/operators", content=WIDE, headers=headers, timeout=15, trust_env=False)
    assert answer.status_code in {200, 201}, answer.text
    run = site.start_run("wide", "ask")
    site.wait_for(run, "waiting", *ENDED)
    sign_in(page, site)
    page.set_viewport_size({"width": 390, "height": 844})
    of_run = run.rpartition("/")[2]
    for place in (
        "",
        "operators/",
        "operators/wide/",
        "operators/wide/ask/runs/",
        "approvals/",
        "general/",
        f"{of_run}/",
    ):
        page.goto(f"{site.url}/agents/{place}")
        expect(page.get_by_text(WORD[:20]).locator("visible=true").first).to_be_visible()
        if place in ("approvals/", f"{of_run}/"):
            expect(page.get_by_role("button", name="Approve", exact=True).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390, place
    site.call("DELETE", run)


def test_what_happened_on_another_day_bears_its_date(page: Page, site: Site) -> None:
    sign_in(page, site)
    run = site.start_run("company_intel", "query")
    site.wait_for(run, *ENDED)
    page.goto(f"{site.url}/agents/{run.rpartition('/')[2]}/")
    stamp = page.locator("#timeline time").first
    expect(stamp).to_have_text(re.compile(r"^\d{1,2}:\d\d:\d\d"))
    page.clock.set_fixed_time(datetime.now(UTC) + timedelta(days=2))
    page.reload()
    expect(stamp).to_have_text(re.compile(r"^\w+ \d{1,2}, \d{1,2}:\d\d:\d\d"))


def test_the_list_of_runs_shows_a_new_run_without_a_reload(page: Page, site: Site) -> None:
    sign_in(page, site)
    page.goto(f"{site.url}/agents/")
    run_id = site.start_run("company_intel", "query").rpartition("/")[2]
    row = page.locator(f"#runs a[href*='{run_id}']").first
    expect(row).to_be_visible(timeout=15_000)
    expect(
        page.locator("#runs [class*='status']", has_text=re.compile("completed", re.IGNORECASE)).first
    ).to_be_visible(timeout=60_000)


def test_the_general_page_hears_what_an_agent_posts(page: Page, site: Site) -> None:
    sign_in(page, site)
    page.goto(f"{site.url}/agents/general/")
    expect(page.locator("#live-state")).to_contain_text("Live", timeout=15_000)

    subject = "cg.v1.default.public.evt.agent.browser_test.message"
    site.post(subject, b'{"id": "hello-1", "content": "Hello from an agent"}')
    expect(page.locator("#timeline")).to_contain_text("Hello from an agent", timeout=15_000)


def test_the_page_of_an_external_run_shows_the_turn_of_an_agent(page: Page, site: Site) -> None:
    sign_in(page, site)
    with agent(site, sys.executable, str(AGENTS / "cg_agent.py"), folder=AGENTS, name="beatrix"):
        run_id = site.start_run("company_intel", "query").rpartition("/")[2]
        place = external("beatrix", run_id)
        until(lambda: ended(site, place), "the agent's turn has ended")
        page.goto(f"{site.url}/agents/{place.rpartition('/')[2]}/")
        expect(page.locator("#timeline")).to_contain_text(f"I look at {run_id}-0")
        expect(page.locator("#timeline")).to_contain_text("company_intel ended with success")
        expect(page.locator("#run-head")).to_contain_text("Completed", ignore_case=True)
        # What it says more is shown without a reload.
        step = {"agent_turn_id": "more", "step_id": "s9", "phase": "started", "content": "One more thing"}
        subject = f"cg.v1.default.t_beatrix-{run_id}-0.evt.agent.beatrix.step"
        expect(page.locator("#live-state")).to_contain_text("Live", timeout=15_000)
        site.post(subject, json.dumps(step).encode())
        expect(page.locator("#timeline")).to_contain_text("One more thing", timeout=15_000)


def test_a_page_shows_every_event_in_order_although_nats_stood_still(page: Page, own_site: Site) -> None:
    sign_in(page, own_site)
    run = _start(page, own_site, "revenue_ops", "engagement")
    expect(page.locator("[id^=step-]").nth(1)).to_be_visible(timeout=60_000)
    state = page.locator("#live-state")
    expect(state).to_contain_text("Live", timeout=15_000)
    nats_pid = own_site.kill("nats", signal.SIGSTOP)
    try:
        # No connection breaks off: that nobody answers has to be noticed.
        expect(state).to_contain_text("Offline", timeout=30_000)
        page.wait_for_timeout(5_000)
        expect(state).to_contain_text("Offline")
    finally:
        os.kill(nats_pid, signal.SIGCONT)
    own_site.wait_for(run, "waiting", *ENDED, seconds=90)
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_visible(timeout=60_000)
    expect(state).to_contain_text("Live", timeout=30_000)
    _shows_all(page, own_site, run)
    shown = _items(page)
    page.reload()
    assert _items(page) == shown


def test_a_page_survives_the_death_of_nats_and_of_the_web_server(page: Page, own_site: Site) -> None:
    sign_in(page, own_site)
    run = _start(page, own_site, "company_intel", "research")
    expect(page.locator("[id^=step-]").first).to_be_visible(timeout=60_000)
    own_site.kill("nats")
    own_site.kill("web")
    expect(page.locator("#run-head")).to_contain_text("Completed", timeout=90_000, ignore_case=True)
    assert own_site.wait_for(run, *ENDED, seconds=60)["status"] == "completed"
    _shows_all(page, own_site, run)
    shown = _items(page)
    page.reload()
    assert _items(page) == shown


def test_a_page_whose_server_stands_still_says_so_and_comes_back(page: Page, own_site: Site) -> None:
    page.clock.install()
    sign_in(page, own_site)
    page.goto(f"{own_site.url}/agents/general/")
    state = page.locator("#live-state")
    expect(state).to_contain_text("Live", timeout=30_000)
    web = own_site.kill("web", signal.SIGSTOP)
    try:
        page.clock.fast_forward("01:20")
        expect(state).to_contain_text("Reconnecting", timeout=30_000)
        # So does an attempt that nobody answers.
        page.clock.fast_forward("00:30")
    finally:
        os.kill(web, signal.SIGCONT)
    expect(state).to_contain_text("Live", timeout=60_000)
    own_site.post("cg.v1.default.public.evt.agent.scout.message", b'{"id": "m1", "content": "back again"}')
    expect(page.locator("#timeline")).to_contain_text("back again", timeout=30_000)


def _shows_all(page: Page, site: Site, run: str) -> None:
    """Wait for the newest event: a page's head is drawn from the run's row, which may be ahead of what it was told."""
    last = site.events(run)[-1]["seq"]
    expect(page.locator(f'#timeline > li[data-seq="{last}"]')).to_be_visible(timeout=30_000)
    # What a reload breaks off would stand on the console.
    page.wait_for_function("!document.querySelector('.htmx-request')")


def _items(page: Page) -> list[tuple[str, str]]:
    """Return what the timeline shows: each item's id and newest event number, in order."""
    items: list[list[str]] = page.locator("#timeline > li").evaluate_all(
        "items => items.map(item => [item.id, item.dataset.seq])"
    )
    return [(name, seq) for name, seq in items]
