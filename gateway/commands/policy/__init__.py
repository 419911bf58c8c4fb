"""gateway.commands.policy."""
