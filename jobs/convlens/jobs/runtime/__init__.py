"""What every process of the service needs: settings, logs, metrics, a Redis client, guarded background threads."""
