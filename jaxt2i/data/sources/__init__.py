"""Where examples come from: folders, records, web collections."""
