"""`sems-gateway learn`: inference, collection, recordings."""
