"""The SEMS cloud: its HTTP APIs over one world, with one set of tasks, and what can be made to go wrong."""

from collections import deque
from collections.abc import Mapping
from typing import Final

from pydantic import SecretStr

from gateway.core.clock import Clock
from gateway.sems.catalogue import Catalogue, load
from gateway.sems.recording import Recording
from gateway.simulator.accounts import Account, AccountSettings, Entrance, md5
from gateway.simulator.controls import Control, Obedience, Tasks
from gateway.simulator.dialect import Dialect
from gateway.simulator.faults import AlarmOrder, AnswerFaults, DeviceFault, FaultOrder
from gateway.simulator.frozen_clock import FrozenClock
from gateway.simulator.platform import Call, Platform
from gateway.simulator.playback import Playback
from gateway.simulator.queries import Queries
from gateway.simulator.results import Faults, ResultFault
from gateway.simulator.settings import SimulatorSettings
from gateway.simulator.shares import CONTRADICT, LATE, OFFLINE, REFUSE, Shares
from gateway.simulator.supplier import Grants, SupplierQueries
from gateway.simulator.world import World

CLASSIC = "open_api"
DEVELOPER = "developer"
REALTIME = "realtime"
CLASSIC_LIFETIME = 7_200.0
DEVELOPER_LIFETIME = 3_600.0
"""Seconds of a token."""

_ILL: Final[Mapping[str, DeviceFault]] = {
    OFFLINE: DeviceFault(offline=True),
    REFUSE: DeviceFault(obedience=Obedience.REFUSES),
    CONTRADICT: DeviceFault(obedience=Obedience.LIES),
    LATE: DeviceFault(),
}
_WELL: Final[Mapping[str, DeviceFault]] = {
    OFFLINE: DeviceFault(offline=False),
    REFUSE: DeviceFault(obedience=Obedience.OBEYS),
    CONTRADICT: DeviceFault(obedience=Obedience.OBEYS),
    LATE: DeviceFault(),
}


class Cloud:
    """One SEMS cloud over one world."""

    def __init__(
        self,
        world: World,
        settings: SimulatorSettings,
        clock: Clock,
        catalogue: Catalogue | None = None,
        recording: Recording | None = None,
    ) -> None:
        """`clock` is also the world's; `catalogue` is the classic API's. A recording's API answers with that alone."""
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
        self.shares = Shares()
        self.faulty: dict[str, str] = {}
        """Serial number → the fault that it has by a share."""
        self.result_faults = Faults[ResultFault]()
        """Of batch commands."""
        self._settings = settings
        self._clock = clock if isinstance(clock, FrozenClock) else FrozenClock(clock)
        classic = AccountSettings(
            name=settings.account,
            secret=md5(settings.password.get_secret_value()),
            lifetime=CLASSIC_LIFETIME,
            calls_per_hour=settings.calls_per_hour,
            limit_by_http_status=settings.limit_by_http_status,
        )
        self.classic = self._platform(catalogue or load(CLASSIC), Account(classic, self._clock))
        self.grants = Grants(settings.whitelist)
        """Of the third-party supplier."""
        organisation = self._account(settings.client_id, settings.client_secret, settings.developer_calls_per_hour)
        supplier = organisation  # which may be the supplier too
        if settings.supplier_id != settings.client_id:
            supplier = self._account(settings.supplier_id, settings.supplier_secret, settings.supplier_calls_per_hour)
        entrance = Entrance(organisation, supplier)
        self.developer = self._platform(load(DEVELOPER), organisation, entrance)
        self.realtime = self._platform(load(REALTIME), supplier, entrance)
        self.platforms = (self.classic, self.developer, self.realtime)
        for platform in self.platforms:
            if recording is not None and platform.catalogue.api == recording.api:
                platform.playback = Playback(recording)

    def _account(self, name: str, secret: SecretStr, calls_per_hour: int) -> Account:
        """Return an account of the developer platform or of the Real-Time Data API."""
        settings = AccountSettings(
            name=name,
            secret=secret.get_secret_value(),
            lifetime=DEVELOPER_LIFETIME,
            calls_per_hour=calls_per_hour,
            limit_by_http_status=self._settings.limit_by_http_status,
            request_ids=self._settings.calls_remembered,
        )
        return Account(settings, self._clock)

    def _platform(self, catalogue: Catalogue, account: Account, entrance: Entrance | None = None) -> Platform:
        dialect = None
        if self._settings.dialect is not None:
            dialect = Dialect(self._settings.dialect, catalogue, self._clock.now)
            catalogue = dialect.catalogue
        if catalogue.api == REALTIME:
            queries: Queries = SupplierQueries(self.world, self.tasks, catalogue, self.grants)
        else:
            queries = Queries(self.world, self.tasks, catalogue)
        return Platform(catalogue, account, queries, self.answer_faults, self.calls, self._clock, entrance, dialect)

    @property
    def controls(self) -> list[Control]:
        """What devices have carried out, oldest first."""
        return self.tasks.controls

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
        if order.shares is not None:
            self._share_out(order.shares)
        for serial, fault in order.devices.items():
            self._spoil_device(serial, fault)
        for alarm in order.alarms:
            self._sound(alarm)
        if order.answers is not None:
            self.answer_faults.listed = order.answers
        if order.results is not None:
            self.result_faults.listed = order.results
        if order.answer_delay is not None:
            self.answer_faults.delay = order.answer_delay
        if order.licence is not None:
            self.grants.licensed = order.licence
        if order.unauthorised is not None:
            self.grants.refused = frozenset(order.unauthorised)
        if order.device_delay is not None:
            self.tasks.delay = order.device_delay
        if order.owner_changes is not None:
            self.tasks.owners.per_hour = order.owner_changes
        for platform in self.platforms:
            if order.refuse_logins is not None:
                platform.account.refuse_logins = order.refuse_logins
            if order.revoke_tokens:
                platform.account.revoke()

    def _mend(self) -> None:
        self.answer_faults.listed, self.answer_faults.delay = (), 0.0
        self.result_faults.listed = ()
        self.tasks.delay = self._settings.device_delay
        self.grants.licensed, self.grants.refused = True, frozenset()
        for platform in self.platforms:
            platform.account.refuse_logins = False
        for serial in self.world.ailing:
            self._spoil_device(serial, DeviceFault(offline=False, tripped=False))
        self.tasks.obedience.clear()
        self._share_out(Shares())
        self.tasks.owners.per_hour = 0.0

    def _share_out(self, shares: Shares) -> None:
        """Give as many inverters faults as these say, and take from them what earlier ones gave."""
        for serial, fault in self.faulty.items():
            self._spoil_device(serial, _WELL[fault])
            self.tasks.late.pop(serial, None)
        self.shares = shares
        self.faulty = shares.choose(self.world.inverters, self.world.seed)
        for serial, fault in self.faulty.items():
            self._spoil_device(serial, _ILL[fault])
            if fault == LATE:
                self.tasks.late[serial] = shares.late

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
