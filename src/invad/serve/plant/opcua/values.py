"""Variables of an OPC UA server that runs, written between two requests of its clients."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from asyncua import Server, ua

LOG = logging.getLogger("invad.serve")


class Values:
    """Writes at once what asyncua would write step by step; used from the loop of the server alone.

    What is put without a pause, no client sees in part. Who subscribed hears of each value, in their order.
    """

    def __init__(self, server: Server):
        self._space = server.iserver.aspace
        self._order = asyncio.Lock()
        self._telling: set[asyncio.Task[None]] = set()  # asyncio itself keeps no task

    def put(self, node: ua.NodeId, data: ua.DataValue | Callable[[], ua.DataValue]) -> None:
        """Let a variable have this value; one that takes time to make is made for whoever asks for it."""
        held = self._space[node].attributes[ua.AttributeIds.Value]
        if callable(data) and not held.datachange_callbacks:
            held.value_callback = lambda node, attribute: data()
            return
        data = data() if callable(data) else data
        held.value, held.value_callback = data, None
        if held.datachange_callbacks:
            task = asyncio.ensure_future(self._tell(held.datachange_callbacks, data))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, subscribed: dict[int, Any], data: ua.DataValue) -> None:
        async with self._order:
            for handle, call in list(subscribed.items()):
                try:
                    await call(handle, data)
                except Exception:  # of one subscription, which the others do not wait for
                    LOG.exception("an OPC UA client was not told of a value")
