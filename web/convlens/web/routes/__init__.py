"""The resources of the gateway, a file each."""
