"""What the gateway tells about itself: metrics, journal, request log."""
