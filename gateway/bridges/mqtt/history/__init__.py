"""Store and forward: what the broker could not be told in time is kept on disk, and told later."""
