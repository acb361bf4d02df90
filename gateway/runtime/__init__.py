"""The asyncio shell around the scheduler: clock, timers, leases; no HTTP."""
