"""Register maps, as tables of rows."""
