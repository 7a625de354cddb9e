"""What surrounds a run: opening it, its checkpoints, records, processes and flags."""
