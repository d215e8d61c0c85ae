"""Below the services: connections, and bounds on the memory that they use."""
