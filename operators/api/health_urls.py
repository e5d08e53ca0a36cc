"""The addresses that monitors ask."""

from django.urls import path

from operators.api import health

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
]
