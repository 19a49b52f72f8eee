"""Ids of results that were confirmed, for whoever waits for that."""

import threading

AT_A_TIME = 32
"""Results that are sent before the first of them is confirmed, at most."""

MOST = 10_000
"""Ids that nobody has waited for yet; of more the oldest are forgotten, and their results are sent again."""


class Receipts:
    """Used from several threads."""

    def __init__(self) -> None:
        self._confirmed: dict[str, None] = {}
        self._changed = threading.Condition()

    def confirm(self, id: str) -> None:
        with self._changed:
            self._confirmed[id] = None
            if len(self._confirmed) > MOST:
                del self._confirmed[next(iter(self._confirmed))]
            self._changed.notify_all()

    def __contains__(self, id: str) -> bool:
        return id in self._confirmed

    def wait(self, id: str, seconds: float) -> bool:
        """Whether it was confirmed, within so many seconds; if so, it is forgotten."""
        with self._changed:
            self._changed.wait_for(lambda: id in self._confirmed, seconds)
            return self._confirmed.pop(id, id) is None
