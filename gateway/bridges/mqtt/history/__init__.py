"""Store and forward: what could not be published in time is kept on disk, and published later."""
