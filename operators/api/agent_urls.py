"""/api/: the paths that agents of external workflow runtimes know."""

from django.urls import path

from operators.api import streams

urlpatterns = [
    path("agents/events", streams.AgentEvents.as_view()),
]
