"""/v1/: the public contract."""

from django.urls import path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from operators.api import (
    answers,
    boxes,
    cards,
    context,
    forks,
    problems,
    registrations,
    schemas,
    servers,
    streams,
    subscriptions,
    views,
    webhooks,
)

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="api-docs"),
    path("operators", registrations.Operators.as_view()),
    path("operators/<slug:slug>", registrations.OperatorPage.as_view()),
    path("operators/<slug:slug>/activate", views.Activate.as_view()),
    path("operators/<slug:slug>/runs", views.Runs.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>", views.RunPage.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>/events", views.RunEvents.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>/retries", views.Retries.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>/steps", forks.Steps.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>/forks", forks.Forks.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>/resume", views.Resume.as_view()),
    path("operators/<slug:slug>/runs/<slug:run_id>/waits/<slug:wait_id>/result", answers.Result.as_view()),
    path("events/stream", streams.Events.as_view()),
    path("events/subscribe", subscriptions.Subscribe.as_view()),
    path("events/subscriptions", subscriptions.Subscriptions.as_view()),
    path("events/subscriptions/<slug:subscription_id>", subscriptions.SubscriptionPage.as_view()),
    path("context/<str:bucket>", context.Bucket.as_view()),
    path("context/<str:bucket>/<path:key>", context.Key.as_view()),
    path("boxes", boxes.Boxes.as_view()),
    path("boxes/<slug:name>", boxes.BoxPage.as_view()),
    path("cards", cards.Cards.as_view()),
    path("cards/<slug:sha256>", cards.CardPage.as_view()),
    path("servers", servers.Servers.as_view()),
    path("schemas/", schemas.Schemas.as_view()),
    path("schemas/<str:name>", schemas.SchemaPage.as_view()),
    re_path(r"^webhooks/(?P<source>[^/]+)/?$", webhooks.Webhook.as_view()),
    re_path(r"^(?P<path>.*)$", problems.not_found),
]
