"""What a configuration is read with: a document that knows its lines, secrets, files that others can read."""
