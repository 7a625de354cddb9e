"""Number-for-number checks against what the original implementations computed."""
