"""Object stores and PostgreSQL: how to reach them, for sources and exports alike."""
