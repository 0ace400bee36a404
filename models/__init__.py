"""What needs history: silence, rollups and the risk layers, run by the worker's tick."""
