"""The SEMS cloud: its HTTP APIs over one world, with one set of tasks, and what can be made to go wrong."""

from collections import deque

from gateway.core.clock import Clock
from gateway.sems.catalogue import Catalogue, load
from gateway.simulator.accounts import Account, Entrance, Terms, md5
from gateway.simulator.controls import Control, Obedience, Tasks
from gateway.simulator.faults import AlarmOrder, AnswerFaults, DeviceFault, FaultOrder
from gateway.simulator.platform import Call, Platform
from gateway.simulator.queries import Queries
from gateway.simulator.requests import Refusal
from gateway.simulator.results import ResultFaults
from gateway.simulator.settings import SimulatorSettings
from gateway.simulator.still import StillClock
from gateway.simulator.supplier import Grants, SupplierQueries
from gateway.simulator.world import World

CLASSIC = "open_api"
DEVELOPER = "developer"
REALTIME = "realtime"


class Cloud:
    """One SEMS cloud over one world."""

    def __init__(
        self,
        world: World,
        settings: SimulatorSettings,
        clock: Clock,
        catalogue: Catalogue | None = None,
        developer: Catalogue | None = None,
        realtime: Catalogue | None = None,
    ) -> None:
        """`clock` is also the world's. Without catalogues of their own, APIs have those that come along."""
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
        self.result_faults = ResultFaults()
        """Of batch commands."""
        self._settings = settings
        self._clock = clock if isinstance(clock, StillClock) else StillClock(clock)
        self.classic = self._platform(catalogue or load(CLASSIC), Account(_classic_terms(settings), self._clock))
        self.grants = Grants(settings.whitelist)
        """Of the third-party supplier."""
        organisation = Account(_developer_terms(settings), self._clock)
        supplier = self._supplier(organisation)
        entrance = Entrance(organisation, supplier)
        self.developer = self._platform(developer or load(DEVELOPER), organisation, entrance)
        self.developer.codes[Refusal.BAD_REQUEST_ID] = settings.request_id_code
        self.realtime = self._realtime(realtime or load(REALTIME), entrance, supplier)
        self.platforms = (self.classic, self.developer, self.realtime)

    def _platform(self, catalogue: Catalogue, account: Account, entrance: Entrance | None = None) -> Platform:
        queries = Queries(self.world, self.tasks, catalogue)
        return Platform(catalogue, account, queries, self.answer_faults, self.calls, self._clock, entrance)

    def _realtime(self, catalogue: Catalogue, entrance: Entrance, supplier: Account) -> Platform:
        queries = SupplierQueries(self.world, self.tasks, catalogue, self.grants)
        return Platform(catalogue, supplier, queries, self.answer_faults, self.calls, self._clock, entrance)

    def _supplier(self, organisation: Account) -> Account:
        """Return the supplier's account, which may be the organisation's too."""
        terms = _supplier_terms(self._settings)
        return organisation if terms.name == organisation.terms.name else Account(terms, self._clock)

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


def _supplier_terms(settings: SimulatorSettings) -> Terms:
    return Terms(
        name=settings.supplier_id,
        secret=settings.supplier_secret.get_secret_value(),
        lifetime=settings.developer_token_lifetime,
        calls_per_hour=settings.supplier_calls_per_hour,
        limit_by_http_status=settings.limit_by_http_status,
        request_ids=settings.calls_remembered,
    )
