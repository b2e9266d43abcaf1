"""The seam between the call log and the rest once more, with a Spark cluster behind it."""
