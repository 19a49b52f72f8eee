"""Which results clients have confirmed, so that the outbox can let go of them.

OPC UA confirms whole notifications: a client that got one names its number in its next request for more. What
was sent to a client that is gone is never confirmed and is sent again.
"""

from collections.abc import Iterable
from typing import Any

from asyncua import ua
from asyncua.server.address_space import AddressSpace
from asyncua.server.internal_server import InternalServer
from asyncua.server.subscription_service import SubscriptionService

from invad.serve.plant.opcua.receipts import AT_A_TIME, Receipts


class Fields(list[ua.Variant]):
    """Those of an event as a client asked for them. result: the id that it tells of."""

    def __init__(self, fields: Iterable[ua.Variant], receipts: Receipts, result: str):
        super().__init__(fields)
        self.receipts, self.result = receipts, result


class ConfirmedSubscriptions(SubscriptionService):  # type: ignore[misc]
    """asyncua's own, which also says what clients confirmed."""

    def __init__(self, aspace: AddressSpace, iserver: InternalServer):
        super().__init__(aspace, iserver)

    async def create_monitored_items(self, params: ua.CreateMonitoredItemsParameters) -> Any:
        for one in params.ItemsToCreate:
            if one.ItemToMonitor.AttributeId == ua.AttributeIds.EventNotifier:
                _make_room(one.RequestedParameters)
        return await super().create_monitored_items(params)

    def publish(self, acks: Iterable[ua.SubscriptionAcknowledgement]) -> Any:
        acks = list(acks)
        for one in acks:
            subscription = self.subscriptions.get(int(one.SubscriptionId))
            if subscription is not None:
                # The only place where asyncua keeps what was sent and not confirmed yet.
                sent = subscription._not_acknowledged_results.get(int(one.SequenceNumber))
                if sent is not None:
                    _confirm(sent.NotificationMessage)
        return super().publish(acks)


def _make_room(wanted: ua.MonitoringParameters) -> None:
    """For as many events as are sent at once, which else would push each other out of the queue of a client
    that asks for few. 0 asks for as many as there can be."""
    if wanted.QueueSize:
        wanted.QueueSize = max(wanted.QueueSize, AT_A_TIME)


def _confirm(message: ua.NotificationMessage) -> None:
    for data in message.NotificationData or ():
        if isinstance(data, ua.EventNotificationList):
            for event in data.Events:
                if isinstance(event.EventFields, Fields):
                    event.EventFields.receipts.confirm(event.EventFields.result)
