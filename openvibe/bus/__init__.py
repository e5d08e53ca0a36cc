"""Messages between processes, through one protocol whichever server carries them.

`publish` is core messaging: fast, lossy, heard by whoever listens now. `store` puts a message into a stream and returns
once it is kept; `pull` reads a stream as one durable consumer that replicas share. `request` asks whoever `serve`s, and
what ends in `_kv` keeps values under keys in buckets.
"""

from __future__ import annotations

import importlib
from typing import Any

from openvibe.bus.adapter import Adapter, is_ready
from openvibe.bus.protocol import (
    ACK_WAIT,
    DUPLICATE_WINDOW,
    ERROR_CODE_HEADER,
    ERROR_HEADER,
    HISTORY,
    MOST_BYTES,
    Bus,
    Entry,
    Handler,
    Message,
    Pull,
    ServeHandler,
    Unsubscribe,
    WatchHandler,
    matches,
)
from openvibe.errors import SetupError

__all__ = [
    "ACK_WAIT",
    "BUSES",
    "DUPLICATE_WINDOW",
    "ERROR_CODE_HEADER",
    "ERROR_HEADER",
    "HISTORY",
    "MOST_BYTES",
    "Bus",
    "Entry",
    "Handler",
    "Message",
    "Pull",
    "ServeHandler",
    "Unsubscribe",
    "WatchHandler",
    "adapted",
    "bus",
    "matches",
]

#: Bus names and the modules that implement them; a module is imported when its bus is asked for.
BUSES = {"memory": "openvibe.bus.memory", "nats": "openvibe.bus.nats", "redis": "openvibe.bus.redis"}


def bus(name: str, **options: Any) -> Bus:
    """Make the bus of that name, not yet connected; `options` (such as `url`) go to its constructor.

    Raises:
        SetupError: no such bus, its package is not installed, or it does not know an option.
    """
    module = BUSES.get(name)
    if module is None:
        raise SetupError(f"No bus is called {name!r}; use one of: {', '.join(BUSES)}")
    try:
        made: Bus = importlib.import_module(module).bus(**options)
    except ImportError as error:
        raise SetupError(f"Bus {name!r} needs a package: pip install openvibe[{name}] ({error})") from error
    except TypeError as error:
        raise SetupError(f"Bus {name!r} does not take these options: {error}") from error
    return made


def adapted(thing: Any, **options: Any) -> Bus:
    """Return a bus, whatever was given: a name (with `options`), a bus, or an object whose methods are plain functions.

    Plain functions run in threads, and the handlers they are given are plain functions too. An object need not offer
    everything: what is missing raises `BusError` when it is called.

    Raises:
        SetupError: it is neither a bus's name nor an object with a `publish` method.
    """
    if isinstance(thing, str):
        return bus(thing, **options)
    return thing if is_ready(thing) else Adapter(thing)
