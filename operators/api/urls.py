"""/v1/: the public contract."""

from django.urls import path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from operators.api import problems, views, webhooks

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="api-docs"),
    path("operators", views.Operators.as_view()),
    path("operators/<slug:slug>", views.OperatorPage.as_view()),
    path("operators/<slug:slug>/activate", views.Activate.as_view()),
    path("operators/<slug:slug>/runs", views.Runs.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>", views.RunPage.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>/events", views.RunEvents.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>/retries", views.Retries.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>/resume", views.Resume.as_view()),
    re_path(r"^webhooks/(?P<source>[^/]+)/?$", webhooks.Webhook.as_view()),
    re_path(r"^(?P<path>.*)$", problems.not_found),
]
