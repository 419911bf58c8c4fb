"""What arrives from the broker, handed to whom it is for."""

from gateway.bridges.mqtt.bridge_requests import BridgeRequests
from gateway.bridges.mqtt.client import Client
from gateway.bridges.mqtt.commands import Commands
from gateway.bridges.mqtt.home_assistant.discovery import Discovery
from gateway.bridges.mqtt.message import Message
from gateway.bridges.mqtt.settings import MqttSettings
from gateway.bridges.mqtt.topics import Topics
from gateway.core.model import new_command_id


class Inbox:
    """Knows what to subscribe to, and who takes it."""

    def __init__(
        self,
        settings: MqttSettings,
        topics: Topics,
        commands: Commands,
        requests: BridgeRequests,
        discovery: Discovery,
    ) -> None:
        self._topics = topics
        self._commands = commands
        self._requests = requests
        self._discovery = discovery
        self._keeps_session = settings.session_expiry > 0
        self._client: Client | None = None
        self._mark = b""

    @property
    def filters(self) -> tuple[str, ...]:
        """What to subscribe to, with all that the broker keeps of it."""
        session = (self._topics.bridge_session,) if self._keeps_session else ()
        return *self._topics.sets, *self._requests.filters, *session

    @property
    def fresh(self) -> tuple[str, ...]:
        """What to subscribe to, from now on only."""
        return self._discovery.filters

    def receive(self, message: Message) -> None:
        """Take a message of any topic."""
        if message.topic == self._topics.bridge_session:
            if self._client is not None and message.payload == self._mark:
                self._client.backlog = False
        elif message.topic in self.fresh:
            self._discovery.receive(message)
        elif (asked := self._topics.parse_request(message.topic)) is not None:
            self._requests.receive(asked, message)
        else:
            self._commands.receive(message)

    async def mark_backlog(self, client: Client) -> None:
        """Find out where the backlog of a kept session ends: when this message comes back, for the broker queues.

        Raises LostError.
        """
        if client.backlog:
            self._client, self._mark = client, new_command_id().encode()
            await client.publish(self._topics.bridge_session, self._mark, 1, retain=False)
