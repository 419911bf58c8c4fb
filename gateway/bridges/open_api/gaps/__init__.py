"""What was missed while the cloud or the gateway was away is read again, for sinks that keep history."""
