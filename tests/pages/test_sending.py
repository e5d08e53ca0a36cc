"""What a socket's frames become: sent at once, or several as one after a server that made them wait."""

from __future__ import annotations

import asyncio

import pytest

from agents_ui.sending import BACKLOG, LONGEST
from tests.pages.servers import Server


async def test_a_frame_is_sent_before_anything_else_gets_a_turn() -> None:
    server = Server()
    socket = server.socket()
    socket.send("one")
    socket.send("two")
    assert server.taken == ["one", "two"]
    assert len(asyncio.all_tasks()) == 1


async def test_frames_that_wait_go_out_as_one_and_in_order() -> None:
    server = Server()
    socket = server.socket()
    server.hold()
    for number in range(4):
        socket.send(f"frame {number};")
    assert server.taken == []
    server.go_on()
    await server.takes("frame 3;")
    assert server.taken == ["frame 0;", "frame 1;frame 2;frame 3;"]
    socket.send("at once again")
    assert server.taken[-1] == "at once again"


async def test_what_waits_goes_out_as_several_where_one_would_be_too_long() -> None:
    server = Server()
    socket = server.socket()
    server.hold()
    for letter in "abcd":
        socket.send(letter * (LONGEST // 2))
    server.go_on()
    await server.takes("d")
    assert [len(frame) for frame in server.taken] == [LONGEST // 2, LONGEST, LONGEST // 2]


async def test_a_socket_that_does_not_keep_up_is_cut_off_once_its_server_takes_something() -> None:
    server = Server()
    socket = server.socket()
    server.hold()
    for number in range(BACKLOG + 2):
        socket.send(f"frame {number}")
    server.go_on()
    await server.is_cut()
    socket.send("too late")
    assert server.taken == ["frame 0"]


@pytest.mark.parametrize("held", [False, True])
async def test_a_page_whose_frame_cannot_be_sent_is_cut_off(held: bool, caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.fault = ValueError("no such frame")
    socket = server.socket()
    if held:
        server.hold()
    socket.send("one")
    socket.send("two")
    server.go_on()
    await server.is_cut()
    assert "A frame could not be sent" in caplog.text
    server.fault = None
    socket.send("three")
    assert server.taken == []


async def test_whoever_has_left_is_sent_nothing_more_and_not_cut() -> None:
    server = Server()
    server.fault = OSError("gone")
    socket = server.socket()
    socket.send("one")
    server.fault = None
    socket.send("two")
    assert (server.taken, server.cut) == ([], False)


async def test_leaving_ends_what_waits() -> None:
    server = Server()
    socket = server.socket()
    server.hold()
    socket.send("one")
    socket.send("two")
    await asyncio.sleep(0)
    socket.leave()
    server.go_on()
    for _ in range(5):
        await asyncio.sleep(0)
    socket.send("three")
    assert (server.taken, server.cut) == ([], False)
    assert len(asyncio.all_tasks()) == 1
