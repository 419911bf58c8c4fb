"""Register maps, as tables of rows. A configuration may ask for any that is installed; see maps/found.py."""
