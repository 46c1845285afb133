"""One hook for each outside system."""
