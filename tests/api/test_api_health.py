"""What monitors ask, and what describes the API."""

from __future__ import annotations

from datetime import timedelta

import jsonschema
import pytest
import yaml
from django.test import Client
from django.utils import timezone
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from operators.models import DeadLetter, Process
from operators.models.process import SILENCE_SECONDS
from operators.services import serving


@pytest.fixture
def monitor(db):
    return Client()


def _alive(kind, *, bus=True, seen=0.0):
    seen_at = timezone.now() - timedelta(seconds=seen)
    Process.objects.create(id=f"{kind}@host:1", kind=kind, bus_connected=bus, seen_at=seen_at, operators=serving.held())


def test_a_living_process_says_so(monitor):
    answer = monitor.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["put", "post", "patch", "delete", "options"])
def test_who_asks_a_monitors_address_otherwise_hears_how_it_is_asked(db, path, method):
    # Programs hold no CSRF token.
    answer = getattr(Client(enforce_csrf_checks=True), method)(path)

    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")


def test_it_is_not_ready_without_worker_bridge_and_bus_and_names_them(monitor):
    answer = monitor.get("/readyz")

    assert answer.status_code == 503
    assert answer.json() == {
        "status": "not ready",
        "parts": {"database": "ok", "worker": "not ready", "bridge": "not ready", "bus": "not ready"},
    }


def test_it_is_ready_when_everything_lives(monitor):
    _alive("worker")
    _alive("bridge")

    answer = monitor.get("/readyz")

    assert answer.status_code == 200
    assert set(answer.json()["parts"].values()) == {"ok"}


def test_a_process_that_fell_silent_counts_as_gone(monitor):
    _alive("worker")
    _alive("bridge", seen=SILENCE_SECONDS + 1)

    answer = monitor.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["parts"]["bridge"] == "not ready"


def test_it_is_not_ready_while_nobody_plays_what_it_holds(monitor):
    _alive("worker")
    _alive("bridge")
    Process.objects.update(operators=["somebody_elses"])

    assert monitor.get("/readyz").json()["parts"]["worker"] == "not ready"


def test_a_bus_that_only_the_dead_were_connected_to_is_not_ready(monitor):
    _alive("worker", bus=False)
    _alive("bridge", seen=SILENCE_SECONDS + 1)

    assert monitor.get("/readyz").json()["parts"]["bus"] == "not ready"


def test_metrics_count_runs_gates_and_dead_letters(monitor, waiting):
    DeadLetter.objects.create(subject="x", body=b"?", reason="no JSON", digest="d")
    _alive("worker")

    answer = monitor.get("/metrics")

    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain")
    lines = answer.content.decode().splitlines()
    assert 'openvibe_runs{status="waiting"} 1.0' in lines
    assert 'openvibe_runs{status="failed"} 0.0' in lines
    assert "openvibe_open_gates 1.0" in lines
    assert "openvibe_dead_letters 1.0" in lines
    assert 'openvibe_process_up{kind="worker"} 1.0' in lines
    assert 'openvibe_process_up{kind="bridge"} 0.0' in lines


def test_metrics_tell_which_streams_a_living_bridge_finds_paused(monitor):
    def told():
        lines = monitor.get("/metrics").content.decode().splitlines()
        return {line for line in lines if line.startswith("openvibe_stream_paused{")}

    names = ("cg_cmd_v1", "cg_evt_v1", "operators", "agent-comms", "sessions")
    assert told() == {f'openvibe_stream_paused{{stream="{name}"}} 0.0' for name in names}
    _alive("worker")
    _alive("bridge")
    Process.objects.filter(kind="bridge").update(paused=["cg_evt_v1"])
    assert 'openvibe_stream_paused{stream="cg_evt_v1"} 1.0' in told()
    assert 'openvibe_stream_paused{stream="cg_cmd_v1"} 0.0' in told()
    Process.objects.update(seen_at=timezone.now() - timedelta(seconds=SILENCE_SECONDS + 1))
    assert 'openvibe_stream_paused{stream="cg_evt_v1"} 0.0' in told()


def test_the_schema_is_valid_openapi_and_lists_our_paths(monitor):
    answer = monitor.get("/v1/schema/")

    assert answer.status_code == 200
    schema = yaml.safe_load(answer.content)
    validate_schema(schema)
    assert {path: set(methods) for path, methods in schema["paths"].items()} == {
        "/api/agents/events": {"get"},
        "/v1/agents": {"get", "post"},
        "/v1/agents/{agent_id}": {"get", "delete"},
        "/v1/boxes": {"post"},
        "/v1/boxes/{name}": {"get"},
        "/v1/cards": {"post"},
        "/v1/cards/{sha256}": {"get"},
        "/v1/context/{bucket}": {"get"},
        "/v1/context/{bucket}/{key}": {"get", "put", "delete"},
        "/v1/events": {"get"},
        "/v1/events/stream": {"get"},
        "/v1/events/subscribe": {"post"},
        "/v1/events/subscriptions": {"get"},
        "/v1/events/subscriptions/{subscription_id}": {"get", "patch", "delete"},
        "/v1/operators": {"get", "post"},
        "/v1/operators/{slug}": {"get", "put", "delete"},
        "/v1/operators/{slug}/activate": {"post"},
        "/v1/operators/{slug}/runs": {"get"},
        "/v1/operators/{slug}/runs/{run_id}": {"get", "delete"},
        "/v1/operators/{slug}/runs/{run_id}/events": {"get"},
        "/v1/operators/{slug}/runs/{run_id}/resume": {"post"},
        "/v1/operators/{slug}/runs/{run_id}/retries": {"post"},
        "/v1/operators/{slug}/runs/{run_id}/steps": {"get"},
        "/v1/operators/{slug}/runs/{run_id}/forks": {"post"},
        "/v1/operators/{slug}/runs/{run_id}/overrides": {"post"},
        "/v1/operators/{slug}/runs/{run_id}/waits/{wait_id}/result": {"post"},
        "/v1/schemas/": {"get"},
        "/v1/schemas/{name}": {"get"},
        "/v1/servers": {"get"},
        "/v1/sessions": {"get", "post"},
        "/v1/sessions/{session_id}": {"get", "delete"},
        "/v1/webhooks/{source}/": {"post"},
    }
    assert schema["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/operators", ""),
        ("/v1/operators/{slug}", ""),
        ("/v1/operators/{slug}/runs", ""),
        ("/v1/operators/{slug}/runs/{run_id}", ""),
        ("/v1/operators/{slug}/runs/{run_id}/events", "?limit=5"),
        ("/v1/context/{bucket}", "?limit=5"),
        ("/v1/events/subscriptions", ""),
        ("/v1/schemas/", ""),
    ],
)
def test_answers_are_what_the_schema_says(alice_calls, waiting, path, query):
    schema = SchemaGenerator().get_schema(request=None, public=True)
    told = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    address = path.format(slug="revenue_ops", bucket="companies", run_id=waiting.rsplit("/", 1)[-1])

    answer = alice_calls.get(address + query).json()

    jsonschema.validate(answer, {**told, "components": schema["components"]})
    for required in told.get("required", ()):
        assert required in answer


def test_the_schema_is_made_without_a_warning(db, capsys):
    GENERATOR_STATS.reset()

    SchemaGenerator().get_schema(request=None, public=True)

    assert not GENERATOR_STATS, capsys.readouterr().err


def test_the_docs_page_comes_up(monitor):
    assert monitor.get("/v1/docs/").status_code == 200
