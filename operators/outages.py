"""The database is away for a moment: what such faults are, and what is done so that the moment is short."""

from __future__ import annotations

import logging
import threading

from django.db import InterfaceError, OperationalError, connection

logger = logging.getLogger(__name__)

#: No request's fault: asked again a little later, the database answers.
AWAY = (OperationalError, InterfaceError)
#: When whoever was refused may ask again, in seconds.
RETRY_SECONDS = 2

_checking = threading.Lock()


def noticed(error: BaseException) -> None:
    """Note that the database did not answer, and drop what a restarted server has left of the pool's connections.

    Each of them would refuse one more request otherwise; to try every connection before it is used would cost
    everybody a round trip.
    """
    logger.warning("The database is away: %s", error)
    pool = getattr(connection, "pool", None)
    if pool is not None and _checking.acquire(blocking=False):
        threading.Thread(target=_check, args=(pool,), name="pool-check", daemon=True).start()


def _check(pool: object) -> None:
    try:
        pool.check()  # type: ignore[attr-defined]  # psycopg's pool, which is not there on SQLite
    except AWAY as error:
        logger.debug("The pool has been emptied: %s", error)
    finally:
        _checking.release()
