"""What monitors and supervisors ask: does it live, is it ready, how is it doing.

They hold no CSRF token: whoever asks by another method is to hear by which ones he may.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import DatabaseError, connection
from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from openvibe.protocol import streams
from operators.models import DeadLetter, Process, Run, Wait
from operators.services import serving


@csrf_exempt
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """Say that this process lives."""
    return JsonResponse({"status": "ok"})


@csrf_exempt
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Say whether a run that is started now would be played and shown; 503 names the part that is not ready."""
    parts = {name: _ready(check) for name, check in CHECKS.items()}
    ready = all(state == "ok" for state in parts.values())
    return JsonResponse({"status": "ok" if ready else "not ready", "parts": parts}, status=200 if ready else 503)


def _ready(check: Callable[[], bool]) -> str:
    try:
        return "ok" if check() else "not ready"
    except DatabaseError as error:
        return f"not ready: {error}"


def _database() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return True


def _bus() -> bool:
    return Process.living().filter(bus_connected=True).exists()


CHECKS: dict[str, Callable[[], bool]] = {
    "database": _database,
    "worker": serving.complete,
    "bridge": lambda: Process.alive(Process.Kind.BRIDGE),
    "bus": _bus,
}


@csrf_exempt
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Tell Prometheus: runs by status, open gates and their age, dead letters, living processes, paused streams."""
    registry = CollectorRegistry()
    runs = Gauge("openvibe_runs", "Runs by status", ["status"], registry=registry)
    counted = dict(Run.objects.order_by().values_list("status").annotate(Count("id")))
    for status in Run.Status.values:
        runs.labels(status).set(counted.get(status, 0))
    gates = Wait.objects.gates().pending().aggregate(count=Count("id"), oldest=Min("opened_at"))
    Gauge("openvibe_open_gates", "Gates that wait for a person", registry=registry).set(gates["count"])
    age = (timezone.now() - gates["oldest"]).total_seconds() if gates["oldest"] else 0
    Gauge("openvibe_oldest_gate_seconds", "Age of the oldest open gate", registry=registry).set(age)
    Gauge("openvibe_dead_letters", "Messages nobody could read", registry=registry).set(DeadLetter.objects.count())
    living = Gauge("openvibe_process_up", "Whether such a process lives", ["kind"], registry=registry)
    for kind in Process.Kind.values:
        living.labels(kind).set(Process.alive(kind))
    paused = Gauge("openvibe_stream_paused", "Whether an administrator has paused it", ["stream"], registry=registry)
    found = {name for names in Process.living().values_list("paused", flat=True) for name in names or ()}
    for consumer in streams.consumers():
        paused.labels(consumer.stream).set(consumer.stream in found)
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
