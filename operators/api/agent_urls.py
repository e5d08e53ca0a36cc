"""/api/: the paths that agents of external workflow runtimes know."""

from django.urls import path, re_path

from operators.api import problems, streams

urlpatterns = [
    path("agents/events", streams.AgentEvents.as_view()),
    re_path(r"^(?P<path>[\s\S]*)$", problems.not_found),
]
