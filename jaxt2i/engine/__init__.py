"""The engine: plays any method's players, sharded, and keeps the run's records."""
