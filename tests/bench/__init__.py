"""Measurements: run by hand, one file each. Figures depend on the machine; ratios matter."""
