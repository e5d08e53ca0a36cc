"""The sitemap of /signin/. `signout` comes before the links, whose tokens may hold anything."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from agents_ui.views import signin

urlpatterns = [
    path("", signin.Password.as_view(), name="signin"),
    path("signout/", LogoutView.as_view(), name="signout"),
    path("<str:token>/", signin.link, name="signin-link"),
]
