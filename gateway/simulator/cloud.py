"""The SEMS cloud: two APIs over one world, with one set of tasks, and what can be made to go wrong."""

from collections import deque

from gateway.core.clock import Clock
from gateway.sems.catalogue import Catalogue, load
from gateway.simulator.accounts import Account, Terms, md5
from gateway.simulator.controls import Control, Obedience, Tasks
from gateway.simulator.faults import AlarmOrder, AnswerFaults, DeviceFault, FaultOrder
from gateway.simulator.platform import Call, Platform
from gateway.simulator.queries import Queries
from gateway.simulator.requests import Refusal
from gateway.simulator.settings import SimulatorSettings
from gateway.simulator.still import StillClock
from gateway.simulator.world import World

CLASSIC = "open_api"
DEVELOPER = "developer"


class Cloud:
    """One SEMS cloud over one world."""

    def __init__(
        self,
        world: World,
        settings: SimulatorSettings,
        clock: Clock,
        catalogue: Catalogue | None = None,
        developer: Catalogue | None = None,
    ) -> None:
        """`clock` is also the world's. The catalogues are the classic one and the developer platform's."""
        self.world = world
        self.calls: deque[Call] = deque(maxlen=settings.calls_remembered)
        """Of all APIs, newest last."""
        self.tasks = Tasks(
            world,
            clock,
            settings.device_delay,
            settings.calls_remembered,
            require_dispatch=settings.require_dispatch,
        )
        self.answer_faults = AnswerFaults()
        self._settings = settings
        self._clock = clock if isinstance(clock, StillClock) else StillClock(clock)
        self.classic = self._platform(catalogue or load(CLASSIC), _classic_terms(settings))
        self.developer = self._platform(developer or load(DEVELOPER), _developer_terms(settings))
        self.developer.codes[Refusal.BAD_REQUEST_ID] = settings.request_id_code
        self.platforms = (self.classic, self.developer)

    def _platform(self, catalogue: Catalogue, terms: Terms) -> Platform:
        queries = Queries(self.world, self.tasks, catalogue)
        account = Account(terms, self._clock)
        return Platform(catalogue, account, queries, self.answer_faults, self.calls, self._clock)

    @property
    def controls(self) -> list[Control]:
        """What devices have carried out, oldest first."""
        return self.tasks.controls

    @property
    def refuses_logins(self) -> bool:
        """Whether no account can enter."""
        return all(platform.account.refuse_logins for platform in self.platforms)

    def open(self) -> None:
        """Answer calls; delayed answers are delayed."""
        for platform in self.platforms:
            platform.open()

    def close(self) -> None:
        """Let delayed answers go at once."""
        for platform in self.platforms:
            platform.close()

    def spoil(self, order: FaultOrder) -> None:
        """Make things go wrong, or well again. Raises KeyError for an unknown device, before anything is done."""
        for serial in (*order.devices, *(alarm.serial for alarm in order.alarms)):
            if self.world.home(serial) is None or serial in self.world.fleet:
                raise KeyError(serial)
        self.tasks.settle()
        if order.clear:
            self._mend()
        for serial, fault in order.devices.items():
            self._spoil_device(serial, fault)
        for alarm in order.alarms:
            self._sound(alarm)
        if order.answers is not None:
            self.answer_faults.listed = order.answers
        if order.answer_delay is not None:
            self.answer_faults.delay = order.answer_delay
        if order.device_delay is not None:
            self.tasks.delay = order.device_delay
        for platform in self.platforms:
            if order.refuse_logins is not None:
                platform.account.refuse_logins = order.refuse_logins
            if order.revoke_tokens:
                platform.account.revoke()

    def _mend(self) -> None:
        self.answer_faults.listed, self.answer_faults.delay = (), 0.0
        self.tasks.delay = self._settings.device_delay
        for platform in self.platforms:
            platform.account.refuse_logins = False
        for serial in self.world.ailing:
            self._spoil_device(serial, DeviceFault(offline=False, tripped=False))
        self.tasks.obedience.clear()

    def _sound(self, order: AlarmOrder) -> None:
        if not order.cleared:
            self.world.raise_alarm(order.serial, order.code, order.text, order.severity)
            return
        for alarm in self.world.alarms(order.serial):
            if alarm.code == order.code and alarm.cleared is None:
                self.world.clear_alarm(order.serial, alarm.id)

    def _spoil_device(self, serial: str, fault: DeviceFault) -> None:
        if fault.tripped is not None:
            self.world.trip(serial, tripped=fault.tripped)
        if fault.offline is not None:
            self.world.silence(serial, offline=fault.offline)
        if fault.obedience is Obedience.OBEYS:
            self.tasks.obedience.pop(serial, None)
        elif fault.obedience is not None:
            self.tasks.obedience[serial] = fault.obedience


def _classic_terms(settings: SimulatorSettings) -> Terms:
    return Terms(
        name=settings.account,
        secret=md5(settings.password.get_secret_value()),
        lifetime=settings.token_lifetime,
        calls_per_hour=settings.calls_per_hour,
        limit_by_http_status=settings.limit_by_http_status,
    )


def _developer_terms(settings: SimulatorSettings) -> Terms:
    return Terms(
        name=settings.client_id,
        secret=settings.client_secret.get_secret_value(),
        lifetime=settings.developer_token_lifetime,
        calls_per_hour=settings.developer_calls_per_hour,
        limit_by_http_status=settings.limit_by_http_status,
        request_ids=settings.calls_remembered,
    )
