"""Who may set what: rules, rates, ramps, and the global stop."""
