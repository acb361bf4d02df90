import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from gateway.server.health_probe import ask_health


class Listener(socketserver.TCPServer):
    status = 200


class Answer(BaseHTTPRequestHandler):
    server: Listener

    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def port_of(listener: Listener) -> int:
    return int(listener.server_address[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_nothing_is_wrong_with_a_gateway_that_serves(host: str, listener: Listener) -> None:
    assert ask_health(host, port_of(listener)) is None


def test_another_status_is_told(listener: Listener) -> None:
    listener.status = 503
    expected = f"127.0.0.1:{port_of(listener)} answers /health with 503"
    assert ask_health("127.0.0.1", port_of(listener)) == expected


@pytest.mark.parametrize("tls", [False, True])
def test_a_port_where_nobody_speaks_the_protocol_is_told(tls: bool) -> None:  # noqa: FBT001
    class Mute(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1024)

    with Listener(("127.0.0.1", 0), Mute) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        trouble = ask_health("127.0.0.1", port_of(server), tls=tls)
        thread.join()
    assert trouble is not None
    assert "does not answer" in trouble


def test_a_port_where_nobody_listens_is_told(listener: Listener) -> None:
    with Listener(("127.0.0.1", 0), Answer) as closed:
        port = port_of(closed)
    assert "does not answer" in str(ask_health("127.0.0.1", port))
