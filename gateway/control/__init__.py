"""What changes the running gateway: reload, administrators, the servers that are discovered."""
