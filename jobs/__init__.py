"""When to settle: one round for cron, and a service. Doors only; how is not known here."""
