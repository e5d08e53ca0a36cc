"""The sitemap of /agents/."""

from django.urls import path

from agents_ui.views import context, forks, gates, general, operators, run, runs, servers

urlpatterns = [
    path("", runs.index, name="runs"),
    path("general/", general.channel, name="general"),
    path("mine/", general.mine, name="mine"),
    path("approvals/", gates.approvals, name="approvals"),
    path("approvals/count/", gates.count, name="open-gates"),
    path("operators/", operators.index, name="operators"),
    path("operators/<slug:slug>/", operators.detail, name="operator"),
    path("operators/<slug:slug>/<slug:workflow>/runs/", operators.start, name="start"),
    path("servers/", servers.index, name="servers"),
    path("context/", context.index, name="context"),
    path("context/<int:entry_id>/", context.detail, name="context-entry"),
    path("cards/<slug:sha256>/", run.card, name="card"),
    path("<slug:run_id>/", run.detail, name="run"),
    path("<slug:run_id>/cancellation/", run.cancellation, name="cancellation"),
    path("<slug:run_id>/retries/", run.retries, name="retries"),
    path("<slug:run_id>/steps/<slug:step_id>/forks/", forks.index, name="forks"),
    path("<slug:run_id>/events/", run.older, name="older"),
    path("<slug:run_id>/started/<slug:act>/", run.started, name="started"),
    path("<slug:run_id>/gates/<slug:wait_id>/", gates.gate, name="gate"),
]
