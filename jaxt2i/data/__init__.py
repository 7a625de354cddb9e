"""Data: one batch schema, its sources, and the pipeline that turns them into batches."""
