"""When to settle: one round for cron, and a service. How to settle is not known here."""
