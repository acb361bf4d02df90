"""The HTTP side of the gateway: listeners, relay, upstream client, monitor."""
