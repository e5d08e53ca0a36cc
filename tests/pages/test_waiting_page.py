"""Runs that wait for somebody else, or started somebody else: what their pages and the list say of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from agents_ui import kinship, rendering
from operators import clock
from operators.models import Effect, Emission, Event, Operator, Process, Run, Wait
from operators.services import deliveries, intake, timeline, waits
from tests.domain.village import accidents
from tests.pages.conftest import Browse, begun, delivered, place, played, quoted

pytestmark = pytest.mark.django_db
Village = dict[str, Operator]


def page(client: Client, run: Run) -> str:
    answer = client.get(f"/agents/{run.id}/")
    assert answer.status_code == 200
    return answer.content.decode()


def events(run: Run) -> list[Event]:
    return timeline.read("default", f"t_{run.id}")


def due(run: Run) -> Run:
    Wait.objects.filter(run=run).update(deadline=timezone.now())
    clock.tick()
    return Run.objects.get(id=run.id)


def doubtful(village: Village) -> Run:
    """A run whose worker died in the middle of an effect, and which asks about it."""
    accidents.append(lambda: (_ for _ in ()).throw(SystemExit))
    found = village["baker"].workflows.select_related("operator").get(slug="buy")
    with pytest.raises(SystemExit):
        begun(village["baker"], found.slug, flour=1)
    accidents.clear()
    Run.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    clock.tick()
    return played(Run.objects.get())


def test_a_sleeping_run_says_until_when(village: Village, vera: User, browse: Browse) -> None:
    run = begun(village["baker"], "rest", flour=1)
    deadline = run.waits.get().deadline
    shown = page(browse(vera), run)
    assert shown.count("Sleeps until") == 2
    assert f'<time datetime="{deadline.isoformat()}" data-time="date"' in shown
    assert f"{deadline:%a %d %b %Y, %H:%M UTC}" in shown
    assert "Woke up" in page(browse(vera), played(due(run)))


def test_a_run_that_waits_for_an_agent_says_for_which_and_how_long(
    village: Village, vera: User, browse: Browse
) -> None:
    run = begun(village["baker"], "remote", loaves=1)
    shown = page(browse(vera), run)
    assert "Waits for a <b>tasting</b> agent." in shown
    assert "Asked a <b>tasting</b> agent to work" in shown
    assert 'class="step step-waiting"' in shown
    waits.settle(run.waits.get(), result={"taste": "nutty"}, by="taster")
    answered = page(browse(vera), played(run))
    assert "<b>taster</b> did the work" in answered
    assert "Waits for" not in answered


def test_an_agent_that_fails_or_says_nothing_is_told(village: Village, vera: User, browse: Browse) -> None:
    failing, silent = (begun(village["baker"], "remote", loaves=1) for _ in range(2))
    waits.settle(failing.waits.get(), error="no tongue", by="taster")
    assert "<b>taster</b> could not do it: no tongue" in page(browse(vera), played(failing))
    assert "No agent answered in time" in page(browse(vera), played(due(silent)))


def test_a_run_that_waits_for_a_tool_says_for_which(village: Village, vera: User, browse: Browse) -> None:
    run = begun(village["baker"], "advised", loaves=1)
    shown = page(browse(vera), run)
    assert "Waits for the tool <b>taste</b>." in shown
    assert "Asked for the tool <b>taste</b>" in shown
    waits.settle(run.waits.get(), result={"taste": "nutty"}, by="taster")
    answered = page(browse(vera), played(run))
    assert "<b>taster</b> answered" in answered
    assert '<span class="value">nutty</span>' in answered


def test_an_agents_steps_tell_its_calls_and_what_came_back(village: Village, vera: User, browse: Browse) -> None:
    shown = page(browse(vera), begun(village["visitors"], "think", report=""))
    assert "Calls <b>weather</b>" in shown
    assert 'Advise <span class="chevron">›</span> weather' in shown
    assert "Rain in " in shown
    assert "Advise.tools" not in shown


def test_a_question_to_another_operator_leads_to_the_run_that_answers(
    village: Village, vera: User, browse: Browse
) -> None:
    asker = begun(village["baker"], "ask", loaves=3)
    deliveries.ask(asker.waits.get().id)
    answerer = Run.objects.get(parent=asker)
    shown = page(browse(vera), asker)
    assert "Waits for <b>grocer</b>’s answer to “price”" in shown
    assert shown.count(f'href="/agents/{answerer.id}/"') == 3
    child = page(browse(vera), answerer)
    assert f'<dd><a href="/agents/{asker.id}/">' in child
    assert "<dt>Depth</dt><dd>1</dd>" in child
    assert "started by a request for “price”" in child
    played(answerer)
    deliveries.reply(answerer.id)
    assert "<b>grocer.quote</b> answered" in page(browse(vera), played(asker))


def test_an_event_leads_to_the_runs_that_it_started(village: Village, vera: User, browse: Browse) -> None:
    run = begun(village["baker"], "bake", flour=50)
    delivered()
    sell, think = Run.objects.filter(parent=run).order_by("operator__slug")
    shown = page(browse(vera), run)
    moment = shown[shown.index("Emitted the event <b>baker.bread_ready</b>") :].split("</li>")[0]
    for child in (sell, think):
        assert f'href="/agents/{child.id}/"' in moment
    assert "hx-get" not in moment
    assert f'href="/agents/?parent={run.id}"' in shown
    assert "started by the event baker.bread_ready" in page(browse(vera), sell)
    assert "Started by the event baker.bread_ready" in page(browse(vera), sell)


def test_an_event_that_was_just_emitted_looks_for_its_runs_until_they_are_there(
    village: Village, vera: User, charlie: User, browse: Browse
) -> None:
    run = begun(village["baker"], "bake", flour=50)
    emission = Emission.objects.get()
    address = f"/agents/{run.id}/started/{emission.id}/"
    wires = [{**row.wire(), "timestamp": row.created_at.isoformat()} for row in events(run)]
    assert f'hx-get="{address}"' in rendering.pushed("default", f"t_{run.id}", wires)
    assert f'hx-get="{address}"' in browse(vera).get(address).content.decode()
    delivered()
    found = browse(vera).get(address).content.decode()
    assert "hx-get" not in found
    assert found.count("<a ") == 2
    assert browse(charlie).get(address).status_code == 404


def test_an_event_that_nobody_listens_to_stops_looking(village: Village, vera: User, browse: Browse) -> None:
    run = begun(village["baker"], "bake", flour=50)
    Emission.objects.update(delivered_at=timezone.now())
    shown = browse(vera).get(f"/agents/{run.id}/started/{Emission.objects.get().id}/").content.decode()
    assert shown.strip() == ""
    assert not kinship.fresh(timezone.now() - timedelta(minutes=2))


def test_an_event_that_could_not_start_a_run_says_why(village: Village, vera: User, browse: Browse) -> None:
    run = begun(village["baker"], "bake", flour=50)
    Run.objects.filter(id=run.id).update(depth=19)
    delivered()
    assert "started no run of grocer.sell: " in page(browse(vera), run)


def test_an_effect_in_doubt_is_asked_about_with_two_buttons(village: Village, bob: User, browse: Browse) -> None:
    run = doubtful(village)
    gate = run.waits.get()
    assert "Nobody can tell whether effect <b>flour</b> happened" in page(browse(bob), run)
    form = browse(bob).get(place(gate), headers={"hx-request": "true"}).content.decode()
    assert '<h2 class="gate-prompt">Did this happen?</h2>' in form
    assert "It happened" in form
    assert "It did not" in form
    wrong = browse(bob).post(place(gate), quoted(gate, decision="it_happened", notes="Kept", **{"values.result": "{"}))
    assert wrong.status_code == 422
    assert "This is no JSON" in wrong.content.decode()
    assert "Kept" in wrong.content.decode()
    browse(bob).post(place(gate), quoted(gate, decision="it_happened", **{"values.result": '{"order": "seen"}'}))
    assert Effect.objects.get().result == {"order": "seen"}
    done = page(browse(bob), played(run))
    assert "<b>bob</b> said that it happened" in done
    assert done.index("Nobody can tell") < done.index("said that it happened") < done.index("was not repeated")


def test_an_effect_that_did_not_happen_takes_no_result_along(village: Village, bob: User, browse: Browse) -> None:
    run = doubtful(village)
    gate = run.waits.get()
    browse(bob).post(place(gate), quoted(gate, decision="it_did_not_happen", **{"values.result": "{oops"}))
    assert Wait.objects.get().values is None
    shown = page(browse(bob), played(run))
    assert "<b>bob</b> said that it did not happen" in shown
    assert "Effect <b>flour</b> happened" in shown


def test_an_escalated_gate_says_to_whom_everywhere(village: Village, bob: User, browse: Browse) -> None:
    run = begun(village["baker"], "judged", loaves=1)
    htmx = {"hx-request": "true"}
    gate = browse(bob).get(place(run.waits.get()), headers=htmx).content.decode()
    assert "then <b>mayor</b> is asked" in gate
    due(run)
    gate = browse(bob).get(place(run.waits.get()), headers=htmx).content.decode()
    assert "Escalated to <b>mayor</b>" in gate
    assert "then it counts as rejected" in gate
    assert "Nobody decided in time: <b>mayor</b> is asked now" in page(browse(bob), run)
    assert "For mayor" in browse(bob).get("/agents/approvals/").content.decode()
    assert "Waits for mayor" in browse(bob).get("/agents/").content.decode()


def test_what_a_node_logs_is_told_in_its_step(village: Village, vera: User, browse: Browse) -> None:
    shown = page(browse(vera), begun(village["visitors"], "notes", report=""))
    step = shown[shown.index('id="step-') :].split("</li>")[0]
    assert "Wrote &lt;it&gt; down" in step
    assert "<summary>Details</summary>" in step


def test_a_run_that_must_end_says_when(village: Village, vera: User, browse: Browse) -> None:
    run = begun(village["baker"], "long", loaves=1)
    assert f'ends by <time datetime="{run.expires_at.isoformat()}"' in page(browse(vera), run)


def test_both_gates_of_a_branching_graph_are_answered_on_one_page(village: Village, bob: User, browse: Browse) -> None:
    run = begun(village["crossroads"], "both")
    shown = page(browse(bob), run)
    gates = list(run.waits.all())
    assert all(place(gate) in shown for gate in gates)
    forms = [browse(bob).get(place(gate), headers={"hx-request": "true"}).content.decode() for gate in gates]
    assert [f'id="in-{gate.id}-values-answer"' in form for gate, form in zip(gates, forms, strict=True)] == [True] * 2
    for gate in gates:
        browse(bob).post(place(gate), quoted(gate, decision="answer", **{"values.answer": gate.node}))
    assert played(run).output == {"left": "left_gate", "right": "right_gate"}


def test_the_list_says_what_waiting_runs_wait_for(village: Village, vera: User, browse: Browse) -> None:
    for name, given in (("rest", {"flour": 1}), ("remote", {"loaves": 1}), ("advised", {"loaves": 1})):
        begun(village["baker"], name, **given)
    begun(village["baker"], "ask", loaves=1)
    begun(village["crossroads"], "both")
    shown = browse(vera).get("/agents/").content.decode()
    for words in (
        "Waits until <time",
        "Waits for a tasting agent",
        "Waits for the tool taste",
        "Waits for grocer’s answer",
        "Waits for a decision and for 1 more",
    ):
        assert words in shown


def test_the_list_marks_children_and_narrows_to_triggers_and_parents(
    village: Village, vera: User, charlie: User, browse: Browse
) -> None:
    parent = begun(village["baker"], "bake", flour=50)
    delivered()
    children = list(Run.objects.filter(parent=parent))
    shown = browse(vera).get("/agents/?trigger=event").content.decode()
    assert f"row-{parent.id}" not in shown
    assert shown.count('class="run-child"') == len(children) == 2
    assert "from Baker › Bake" in shown
    narrowed = browse(vera).get(f"/agents/?parent={parent.id}").content.decode()
    assert f"row-{parent.id}" not in narrowed
    assert all(f"row-{child.id}" in narrowed for child in children)
    assert "row-" not in browse(vera).get("/agents/?trigger=cron").content.decode()
    assert "row-" not in browse(charlie).get(f"/agents/?parent={parent.id}").content.decode()


def test_a_page_of_older_events_keeps_the_rests_of_steps_that_woke_up_later(
    village: Village,
) -> None:
    run = played(due(begun(village["baker"], "rest", flour=1)))
    fired = next(row for row in events(run) if row.kind == "timer.fired")
    earlier = rendering.earlier([row for row in events(run) if row.seq < fired.seq])
    assert "Sleeps until" in earlier
    assert "Rise" in earlier


@pytest.mark.parametrize("path", ["/agents/", "/agents/{run}/", "/agents/approvals/"])
def test_a_page_with_kin_asks_the_database_a_few_times(
    path: str, village: Village, bob: User, browse: Browse, django_assert_max_num_queries
) -> None:
    for _ in range(3):
        run = begun(village["baker"], "bake", flour=200)
        begun(village["baker"], "rest", flour=1)
        begun(village["baker"], "judged", loaves=1)
    delivered()
    client = browse(bob)
    with django_assert_max_num_queries(12):
        assert client.get(path.format(run=run.id)).status_code == 200


def test_a_queued_run_whose_operator_no_living_worker_holds_says_so(
    village: Village, vera: User, browse: Browse
) -> None:
    found = village["baker"].workflows.select_related("operator").get(slug="bake")
    run = intake.request(found, input={"flour": 1}, actor=None)
    told = f"No worker serves {village['baker'].name} now."
    assert told in page(browse(vera), run)
    living = Process.objects.create(id="worker@a:1", kind="worker", operators=["grocer"], seen_at=timezone.now())
    assert told in page(browse(vera), run)
    Process.objects.filter(pk=living.pk).update(operators=["baker"])
    assert told not in page(browse(vera), run)
