"""What acts by itself: reads the states of devices, submits commands, and is a device of its own."""
