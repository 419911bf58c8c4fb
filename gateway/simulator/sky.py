"""Sun, clouds, air temperature and what a site consumes, at any time.

Times are POSIX seconds of the physics clock; irradiance W/m², temperatures °C, power W.
"""

from datetime import datetime
from functools import lru_cache
from math import cos, exp, pi, radians, sin
from typing import Final

import msgspec

from gateway.simulator.noise import derive, smooth, swing, unit
from gateway.simulator.specs import PlantSpec, Site

DAY: Final = 86_400.0
_YEAR: Final = 365.2425
_EPOCH_2000: Final = 946_728_000.0  # 2000-01-01 12:00 UTC
_OBLIQUITY: Final = radians(23.439)
_DIFFUSE_CLEAR: Final = 0.14
_CLOUD_LAYERS: Final = ((0.55, 5 * 3600.0), (0.30, 2400.0), (0.15, 240.0))
"""Weight, and seconds from one random height to the next: weather, cloud banks, single clouds."""
_SINGLE: Final = 600.0
"""Layers with a shorter period are single clouds: no two plants of a region have the same."""
_WIND: Final = (20.0, 60.0)
"""km/h with which a region's clouds pass."""


class Sky(msgspec.Struct, frozen=True, gc=False):
    """What a plant feels."""

    irradiance: float
    """W/m² in the module plane."""
    ambient: float
    """°C."""


class Weather(msgspec.Struct, frozen=True, gc=False):
    """What a weather station measures besides light and heat."""

    wind_speed: float
    """m/s."""
    wind_direction: float
    """° that the wind comes from."""
    humidity: float
    """%."""


class Sun(msgspec.Struct, frozen=True, gc=False):
    """Where the sun stands."""

    sin_elevation: float
    cos_incidence: float
    """Of its rays on the module plane."""


@lru_cache(maxsize=4096)
def sun(site: Site, time: float) -> Sun:
    """Return the sun's position (Astronomical Almanac's low-precision formulae, about 0.1°).

    It is kept, for thousands of plants of one site are asked about at the same times.
    """
    days = (time - _EPOCH_2000) / DAY
    anomaly = radians(357.528 + 0.9856003 * days)
    longitude = radians(280.460 + 0.9856474 * days + 1.915 * sin(anomaly) + 0.020 * sin(2 * anomaly))
    sin_declination = sin(_OBLIQUITY) * sin(longitude)
    cos_declination = (1 - sin_declination * sin_declination) ** 0.5
    season = 2 * pi * (days / _YEAR - 0.222)
    equation_of_time = 9.87 * sin(2 * season) - 7.53 * cos(season) - 1.5 * sin(season)  # minutes
    cos_hour = cos(2 * pi * (time / DAY + site.longitude / 360 + equation_of_time / 1440 - 0.5))
    latitude = radians(site.latitude)
    tilted = latitude - radians(site.tilt if site.latitude >= 0 else -site.tilt)
    return Sun(
        sin(latitude) * sin_declination + cos(latitude) * cos_declination * cos_hour,
        sin(tilted) * sin_declination + cos(tilted) * cos_declination * cos_hour,
    )


def irradiance(position: Sun, clearness: float) -> float:
    """Return the irradiance in the module plane.

    Clear sky after Haurwitz; `clearness` is the part of the direct light that the clouds let through.
    """
    height = position.sin_elevation
    if height <= 0:
        return 0.0
    horizontal = 1098 * height * exp(-0.057 / height)
    # A sun at the horizon would shine with infinite strength on a plane that stands up to it.
    direct = horizontal * (1 - _DIFFUSE_CLEAR) / max(height, 0.06) * max(position.cos_incidence, 0.0)
    diffuse = horizontal * (_DIFFUSE_CLEAR + 0.25 * (1 - clearness))
    return direct * clearness + diffuse


@lru_cache(maxsize=4096)
def _ambient(site: Site, air: int, time: float) -> float:
    hemisphere = 1 if site.latitude >= 0 else -1
    season = cos(2 * pi * ((time - _EPOCH_2000) / DAY / _YEAR - 0.56))  # warmest late in July
    hour = cos(2 * pi * (time / DAY + site.longitude / 360 - 15 / 24))  # warmest at three
    mean = 35 - 0.5 * abs(site.latitude)
    return mean + 9 * hemisphere * season + 4.5 * hour + 3 * swing(air, time / (9 * 3600))


class Climate:
    """The weather over one plant, and the habits of who lives there.

    Plants of one region have the same air, and the same clouds pass over them, over each as much later as it lies
    farther down the wind.
    """

    def __init__(self, plant: PlantSpec, seed: int) -> None:
        self._site = plant.site
        self._zone = plant.zone
        self._load = plant.load
        home = plant.region or plant.id
        slow, fast = _WIND
        wind = slow + (fast - slow) * unit(derive(seed, home, "cloud wind"), 0)
        self._behind = 3600 * plant.place / wind
        """Seconds after which a cloud of the region's is here."""
        self._clouds = [
            (weight, period, derive(seed, plant.id if period < _SINGLE else home, "clouds", str(period)))
            for weight, period in _CLOUD_LAYERS
        ]
        self._air = derive(seed, home, "air")
        self._wind = derive(seed, plant.id, "wind")
        self._gusts = derive(seed, plant.id, "gusts")
        self._vane = derive(seed, plant.id, "vane")
        self._damp = derive(seed, plant.id, "damp")
        self._habits = derive(seed, plant.id, "habits")
        self._bursts = derive(seed, plant.id, "bursts")

    def clearness(self, time: float) -> float:
        """Return the part of the direct light that comes through, 0.08 to 1."""
        there = time - self._behind
        cover = 0.0
        for weight, period, seed in self._clouds:
            cover += weight * smooth(seed, there / period)
        return 1 - 0.92 * min(max((cover - 0.42) / 0.33, 0.0), 1.0)

    def ambient(self, time: float) -> float:
        """Return the air temperature."""
        return _ambient(self._site, self._air, time)

    def sky(self, time: float) -> Sky:
        """Return irradiance and temperature."""
        return Sky(irradiance(sun(self._site, time), self.clearness(time)), self.ambient(time))

    def weather(self, time: float, sky: Sky) -> Weather:
        """Return wind and humidity. The vane goes twice round within its noise, so that it knows no corner."""
        breeze = smooth(self._wind, time / (7 * 3600))
        gusts = swing(self._gusts, time / 40)
        turns = 2 * smooth(self._vane, time / (11 * 3600)) + 0.03 * swing(self._vane, time / 300)
        damp = 62 - 1.3 * (sky.ambient - 14) + 18 * (1 - self.clearness(time)) + 8 * swing(self._damp, time / 7200)
        speed = (0.4 + 11 * breeze * breeze) * (1 + 0.25 * gusts)
        return Weather(speed, 360 * (turns % 1), min(max(damp, 15.0), 100.0))

    def hour(self, time: float) -> int:
        """Return the hour of the local clock."""
        return datetime.fromtimestamp(time, self._zone).hour

    def daylight(self, time: float) -> Sky | None:
        """Return irradiance and temperature; None while the sun is below the horizon, which is soon found out."""
        position = sun(self._site, time)
        if position.sin_elevation <= 0:
            return None
        return Sky(irradiance(position, self.clearness(time)), self.ambient(time))

    def load(self, time: float) -> float:
        """Return what the site consumes, without the inverters' own losses."""
        load = self._load
        local = datetime.fromtimestamp(time, self._zone)
        part = local.minute / 60 + local.second / 3600 + local.microsecond / 3.6e9
        now, following = load.hours[local.hour], load.hours[(local.hour + 1) % 24]
        activity = now + (following - now) * part
        habit = 0.7 + 0.6 * smooth(self._habits, time / 1800)
        burst = max(smooth(self._bursts, time / 300) - 0.72, 0.0) / 0.28
        return load.base + activity * (load.swing * habit + load.bursts * burst)
