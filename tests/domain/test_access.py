"""Who sees what, and the links that let people in."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser, User, update_last_login

from operators.models import Operator, Project, Run, Wait
from operators.services import signin


def test_members_see_their_project_and_charlie_does_not(gate, alice, bob, vera, charlie):
    for user in (alice, bob, vera):
        assert Run.objects.visible_to(user).count() == 1
        assert Wait.objects.visible_to(user).count() == 1
        assert Operator.objects.visible_to(user).exists()
    assert not Run.objects.visible_to(charlie).exists()
    assert not Wait.objects.visible_to(charlie).exists()
    assert not Operator.objects.visible_to(charlie).exists()


def test_a_viewer_operates_nothing(project, alice, bob, vera, charlie):
    may = {user.username for user in (alice, bob, vera, charlie) if project in Project.objects.operable_by(user)}

    assert may == {"alice", "bob"}


def test_nobody_sees_nothing_not_even_a_project_without_members(db):
    Project.objects.create(id="empty", name="Empty")

    assert not Project.objects.visible_to(AnonymousUser()).exists()
    assert not Project.objects.operable_by(AnonymousUser()).exists()


def test_a_superuser_sees_every_project(project, other_project):
    root = User.objects.create_superuser("root")

    assert Project.objects.visible_to(root).count() == 2


def test_a_sign_in_link_works_once(alice):
    token = signin.token(alice)

    assert signin.redeem(token) == alice
    update_last_login(None, alice)
    assert signin.redeem(token) is None


def test_a_forged_sign_in_link_lets_nobody_in(alice):
    token = signin.token(alice)

    assert signin.redeem(token[:-1] + ("a" if token[-1] != "a" else "b")) is None
    assert signin.redeem("") is None
    assert signin.redeem("nonsense") is None


def test_a_sign_in_link_of_somebody_who_left_is_void(alice):
    token = signin.token(alice)
    alice.is_active = False
    alice.save()

    assert signin.redeem(token) is None
