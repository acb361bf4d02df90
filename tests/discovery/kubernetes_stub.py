"""A stub of the Kubernetes API that replays lists and watch streams, with breaks where wanted."""

import asyncio
import json
from collections import defaultdict, deque
from enum import Enum
from urllib.parse import parse_qs, unquote, urlsplit

from tests.server.raw_server import Peer, RawServer

PODS = "/api/v1/namespaces/default/pods"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
POOLS = "/apis/inference.networking.k8s.io/v1/namespaces/default/inferencepools"
OBJECTIVES = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/default/inferenceobjectives"


class Break(Enum):
    """How a watch stream ends, where it does not go on."""

    RESET = "the connection is gone in the middle of a chunk"
    END = "in good order"
    TORN = "in good order for HTTP, but in the middle of a line"


Step = dict[str, object] | Break


class KubernetesStub(RawServer):
    """Answers lists from `objects`, and each watch with the next of `streams`; then it is silent.

    Attributes:
        refusals: by path, answers that are given instead, one each: (status, message).
        lists, watches: what was asked: path and query.
        tokens: credentials that were sent.
    """

    def __init__(self) -> None:
        super().__init__(self._serve)
        self.objects: dict[str, dict[str, dict[str, object]]] = defaultdict(dict)
        self.streams: dict[str, deque[list[Step]]] = defaultdict(deque)
        self.refusals: dict[str, deque[tuple[int, str]]] = defaultdict(deque)
        self.lists: list[tuple[str, dict[str, str]]] = []
        self.watches: list[tuple[str, dict[str, str]]] = []
        self.tokens: list[str | None] = []
        self.version = 100
        self.page = 500
        self._live: dict[str, list[asyncio.Queue[Step]]] = defaultdict(list)
        self._history: dict[str, list[tuple[int, Step]]] = defaultdict(list)

    def put(self, path: str, subject: dict[str, object]) -> None:
        """Add or change an object; open watches are told."""
        self.version += 1
        meta = subject["metadata"]
        assert isinstance(meta, dict)
        meta["resourceVersion"] = str(self.version)
        kind = "MODIFIED" if meta["name"] in self.objects[path] else "ADDED"
        self.objects[path][meta["name"]] = subject
        self._happened(path, {"type": kind, "object": subject})

    def delete(self, path: str, name: str) -> None:
        self.version += 1
        self._happened(path, {"type": "DELETED", "object": self.objects[path].pop(name)})

    def _happened(self, path: str, step: Step) -> None:
        self._history[path].append((self.version, step))
        self.tell(path, step)

    def tell(self, path: str, step: Step) -> None:
        """Send a step to every open watch."""
        for queue in self._live[path]:
            queue.put_nowait(step)

    def watching(self, path: str) -> int:
        return len(self._live[path])

    async def _serve(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            parts = urlsplit(request.line.split(" ")[1])
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.tokens.append(request.header("authorization"))
            path = unquote(parts.path)
            if self.refusals[path]:
                status, message = self.refusals[path].popleft()
                body = json.dumps({"kind": "Status", "message": message, "code": status})
                await peer.send(_response(body.encode(), status))
            elif "watch" in query:
                self.watches.append((path, query))
                if not await self._watch(peer, path, int(query["resourceVersion"])):
                    return
            else:
                self.lists.append((path, query))
                await peer.send(_response(self._list(path, query)))

    def _list(self, path: str, query: dict[str, str]) -> bytes:
        start = int(query.get("continue", 0))
        items = list(self.objects[path].values())
        wanted = query.get("fieldSelector", "").removeprefix("metadata.name=")
        if wanted:
            items = [each for name, each in self.objects[path].items() if name == wanted]
        end = start + self.page
        more = str(end) if end < len(items) else ""
        meta = {"resourceVersion": str(self.version), "continue": more}
        return json.dumps({"kind": "List", "metadata": meta, "items": items[start:end]}).encode()

    async def _watch(self, peer: Peer, path: str, since: int) -> bool:
        """Replay what happened since, then a stream; return whether the connection goes on."""
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        queue: asyncio.Queue[Step] = asyncio.Queue()
        self._live[path].append(queue)
        try:
            for version, step in self._history[path]:
                if version > since:
                    queue.put_nowait(step)
            for step in self.streams[path].popleft() if self.streams[path] else ():
                queue.put_nowait(step)
            gone = asyncio.ensure_future(peer.gone())
            while True:
                next_step = asyncio.ensure_future(queue.get())
                await asyncio.wait({next_step, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    next_step.cancel()
                    return False
                step = next_step.result()
                if isinstance(step, Break):
                    gone.cancel()
                    await asyncio.gather(gone, return_exceptions=True)
                    return await _ended(peer, step)
                line = json.dumps(step).encode() + b"\n"
                # In two chunks, as the network may cut it anywhere.
                await peer.send(_chunk(line[:7]), _chunk(line[7:]))
        finally:
            self._live[path].remove(queue)


async def _ended(peer: Peer, how: Break) -> bool:
    if how is Break.RESET:
        peer.writer.write(b"40\r\n{")
        peer.writer.transport.abort()
        return False
    if how is Break.TORN:
        await peer.send(_chunk(b'{"type":"ADDED","obj'))
    await peer.send(b"0\r\n\r\n")
    return True


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _response(body: bytes, status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def pod(name: str, ip: str, *, ready: bool = True, **fields: object) -> dict[str, object]:
    """A running pod, as the API shows it, shortened."""
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "True" if ready else "False"},
    ]
    status = {"phase": "Running", "podIP": ip, "conditions": conditions, **fields}
    return {"metadata": {"name": name, "labels": {"app": "vllm"}}, "spec": {}, "status": status}


def slice_of(name: str, *endpoints: tuple[str, bool | None], **fields: object) -> dict[str, object]:
    """An EndpointSlice; an endpoint is an address and whether it is ready."""
    return {
        "metadata": {"name": name},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": ready, "serving": True}}
            for address, ready in endpoints
        ],
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        **fields,
    }


def inference_pool(name: str, labels: dict[str, str], *ports: int) -> dict[str, object]:
    return {
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "epp"},
        },
    }


def objective(name: str, pool: str, priority: int | None) -> dict[str, object]:
    spec: dict[str, object] = {"poolRef": {"name": pool, "kind": "InferencePool"}}
    return {
        "metadata": {"name": name},
        "spec": spec if priority is None else spec | {"priority": priority},
    }
