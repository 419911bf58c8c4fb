"""What was promised and what became of it, on the disk: the journal, and the audit in it."""
