"""What the SEMS clouds are: catalogues of their interfaces, the session with one, answers into points."""
