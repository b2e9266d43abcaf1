"""Running unattended: when to settle, what is said, and who is told."""
