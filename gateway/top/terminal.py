"""Shows a gateway in this terminal, until interrupted or once."""

from rich.console import Console
from rich.live import Live

from gateway.top.admin_client import AdminClient
from gateway.top.screen import render, rows_of_requests

_ONCE_ROWS = 10


def print_once(client: AdminClient, console: Console | None = None) -> None:
    """Print the state, all services and servers, and the last requests."""
    (console or Console()).print(render(client.look(rows=_ONCE_ROWS), height=None))


def watch(client: AdminClient, console: Console | None = None) -> None:
    """Show the state once a second until the gateway stops or the viewer interrupts."""
    console = console or Console()
    rows = rows_of_requests(console.size.height)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            for sight in client.sights(rows=rows):
                live.update(render(sight, height=console.size.height), refresh=True)
        except KeyboardInterrupt:
            return
    console.print("The gateway has stopped.")
