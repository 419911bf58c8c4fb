"""What Home Assistant's statistics make of a `total_increasing` sensor.

The rule of homeassistant/components/sensor/recorder.py (`reset_detected`, `compile_statistics`), the same in 2024.11
and 2026.11: a fall below nine tenths begins a new cycle at 0; states that are no numbers are passed over.
`make home-assistant` compares it with Home Assistant's own code.
"""

RESET = 0.9


def summed(states):
    """Return the sum that Home Assistant shows after these states, from 0 at the first."""
    total, start, last = 0.0, None, None
    for state in states:
        if state is None or state < 0:
            continue
        if start is None:
            start = state
        elif state < RESET * last:
            total, start = total + last - start, 0.0
        last = state
    return 0.0 if start is None else total + last - start
