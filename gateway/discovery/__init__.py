"""Where the servers of a pool are looked for: DNS, files, Kubernetes."""
