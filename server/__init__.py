"""The coordinator: keeps the generation table in PostgreSQL, breeds candidates and leases them to workers."""
