"""The sitemap."""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

handler500 = "openvibe_site.failures.answer"

urlpatterns = [
    # The admin and the API's pages name no icon, so browsers ask here.
    path("favicon.ico", RedirectView.as_view(url=static("favicon.svg"))),
    path("", RedirectView.as_view(pattern_name="runs")),
    path("agents/", include("agents_ui.urls")),
    path("signin/", include("agents_ui.signin_urls")),
    path("admin/", admin.site.urls),
    path("v1/", include("operators.api.urls")),
    path("api/", include("operators.api.agent_urls")),
    path("", include("operators.api.health_urls")),
]
