"""The parts of a count, one module each; `usage.count` puts them together and says how."""
