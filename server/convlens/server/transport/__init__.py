"""What a connection may make this process hold, below the services."""
