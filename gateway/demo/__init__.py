"""`sems-gateway demo`: everything on one machine, without an account."""
