"""Visits of nodes are named by their steps or, where a play starts over, by their number."""

from __future__ import annotations

from openvibe.visits import Visits


def test_a_visit_is_named_by_its_step():
    assert Visits().name("buy", "step-1") == "step-1"


def test_where_a_play_starts_over_the_same_visit_has_the_same_name():
    first, second = Visits(starts_over=True), Visits(starts_over=True)
    for visits, steps in ((first, "ab"), (second, "xy")):
        for step in steps:
            visits.begin("buy", step)
            visits.begin("buy", step)
    names = [first.name("buy", step) for step in "ab"]
    assert names == [second.name("buy", step) for step in "xy"]
    assert len({*names, first.name("sell", "c")}) == 3
    assert all(len(name) <= 64 for name in names)
