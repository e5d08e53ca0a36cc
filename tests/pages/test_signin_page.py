"""Signing in by password and by link, and out again."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from operators.services import signin
from tests.pages.conftest import Browse

pytestmark = pytest.mark.django_db


def test_a_password_opens_the_page_that_was_asked_for(bob: User) -> None:
    bob.set_password("a long one")
    bob.save()
    client = Client()
    assert "make signin" in client.get("/signin/").content.decode()
    sent = {"username": "bob", "password": "a long one", "next": "/agents/approvals/"}
    assert client.post("/signin/?next=/agents/approvals/", sent)["Location"] == "/agents/approvals/"


def test_a_wrong_password_says_so(bob: User) -> None:
    page = Client().post("/signin/", {"username": "bob", "password": "x"}).content.decode()
    assert "Please enter a correct username and password" in page


def test_a_link_signs_in_once_and_only_by_its_button(bob: User) -> None:
    client, url = Client(), f"/signin/{signin.token(bob)}/"
    assert "data-submit" in client.get(url).content.decode()
    assert client.get("/agents/").status_code == 302
    assert client.post(url)["Location"] == "/agents/operators/"
    assert client.get("/agents/").status_code == 200
    again = Client().post(url)
    assert again.status_code == 403
    assert "prints a fresh one" in again.content.decode()


def test_a_forged_link_is_refused(bob: User) -> None:
    assert Client().post("/signin/forged/").status_code == 403


def test_signing_out_ends_the_session(bob: User, browse: Browse) -> None:
    client = browse(bob)
    assert client.post("/signin/signout/")["Location"] == "/signin/"
    assert client.get("/agents/").status_code == 302
