"""One setpoint shared out over many devices, followed through their data, with one result."""
