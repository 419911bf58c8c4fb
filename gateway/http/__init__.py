"""HTTP and TCP listeners that several bridges share."""
