"""The commands of ``settle``, grouped by what they are for."""
