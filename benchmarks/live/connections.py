"""Idle streams and slow headers: `python -m benchmarks.live.connections [STREAMS [SLOW]]`.

Opens streams that say one event and then nothing, then connections whose headers never end, more
than there is room for; good requests go through all the while, and every stream ends well.
"""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

_READY_WITHIN_S = 120.0
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
_CHAT = json.dumps({"model": "base", "stream": True, "messages": []}).encode()
_SMALL = json.dumps({"model": "base", "messages": []}).encode()
_EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
_END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


async def _serve(port: int) -> None:
    """A model server whose streams end when it gets SIGUSR1."""
    go = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go.set)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
                body = await reader.readexactly(int(lines.get("content-length", 0)))
                if b'"stream"' in body:
                    writer.write(
                        _HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n"
                    )
                    writer.write(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
                    await go.wait()
                    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(_END), _END))
                else:
                    page = b'{"data":[{"id":"base"}]}' if "/v1/models" in head else b"{}"
                    writer.write(_HEAD % b"application/json")
                    writer.write(b"content-length: %d\r\n\r\n%b" % (len(page), page))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4_096)
    await server.serve_forever()


async def _until_it_streams(reader: asyncio.StreamReader) -> None:
    try:
        await reader.readuntil(b'"content":"a"')
    except asyncio.IncompleteReadError as error:
        raise RuntimeError(f"no stream: {error.partial!r}") from error


def _post(body: bytes) -> bytes:
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


async def _good_request(port: int) -> float:
    """Make one request on a connection of its own; return how long it took, in seconds."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_post(_SMALL))
    status = await reader.readline()
    assert b" 200 " in status, status + await reader.read(2_000)
    writer.close()
    return time.perf_counter() - begun


async def _measure(ports: tuple[int, int, int], server_pid: int, streams: int, slow: int) -> None:
    port, admin_port, _ = ports
    held = []
    while len(held) < streams:
        batch = []
        for _ in range(min(50, streams - len(held))):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4_096)
            writer.write(_post(_CHAT))
            batch.append((reader, writer))
        for reader, _ in batch:
            await _until_it_streams(reader)
        held += batch
    print(f"{streams} streams are open; a good request takes {await _good_request(port):.3f} s")
    attackers, times = [], []
    for number in range(slow):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=4_096)
        except OSError:
            continue
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nX-A: ")
        attackers.append(writer)
        if number % 100 == 0:
            times.append(await _good_request(port))
    times.sort()
    print(f"{len(attackers)} connections began headers that do not end; of {len(times)} good"
          f" requests meanwhile all were answered, the median in {times[len(times) // 2]:.3f} s,"
          f" the slowest in {times[-1]:.3f} s")  # fmt: skip
    await asyncio.to_thread(_print_counts, admin_port)
    os.kill(server_pid, signal.SIGUSR1)
    ended = 0
    for reader, _ in held:
        rest = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 60)
        ended += rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    print(f"{ended} of {streams} streams ended with [DONE]")
    assert ended == streams


def _print_counts(admin_port: int) -> None:
    url = f"http://127.0.0.1:{admin_port}/metrics"
    wanted = ("llm_gateway_client_connections{", "llm_gateway_cut_connections_total{")
    for line in urllib.request.urlopen(url).read().decode().split("\n"):
        if line.startswith(wanted) and 'listener="clients"' in line:
            print(line)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=_READY_WITHIN_S).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} after {_READY_WITHIN_S} s: {error}") from error
            time.sleep(0.1)
        else:
            return


def _free_ports() -> tuple[int, int, int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports[0], ports[1], ports[2]


def main(streams: int, slow: int) -> None:
    """Start a model server and a gateway, measure, and end them."""
    ports = _free_ports()
    server = subprocess.Popen([sys.executable, __file__, "serve", str(ports[2])])
    gateway = subprocess.Popen(
        [sys.executable, "-m", "gateway", "--host", "127.0.0.1", "--port", str(ports[0]),
         "--admin-port", str(ports[1]), "--backends", f"http://127.0.0.1:{ports[2]}",
         "--max-requests-per-backend", "100000", "--request-log", "/dev/null",
         "--first-byte-timeout", "1h", "--stall-timeout", "1h", "--log-level", "warning",
         # A server that is starved by other work is not broken.
         "--probe-timeout", "30s"],
    )  # fmt: skip
    try:
        _wait_until_ready(f"http://127.0.0.1:{ports[0]}/ready")
        asyncio.run(_measure(ports, server.pid, streams, slow))
        memory = Path(f"/proc/{gateway.pid}/status").read_text(encoding="ascii")
        print(next(line for line in memory.split("\n") if line.startswith("VmHWM")))
    finally:
        gateway.terminate()
        server.terminate()
        gateway.wait(40)
        server.wait(10)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(_serve(int(sys.argv[2])))
    else:
        numbers = [int(each) for each in sys.argv[1:]]
        main(*numbers) if numbers else main(5_000, 10_000)
