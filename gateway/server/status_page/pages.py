"""The page's routes: its files, the stream of events, and the requests that ended lately."""

from urllib.parse import parse_qs, unquote

from gateway.scheduling.model import RequestId
from gateway.scheduling.snapshot import Explanation
from gateway.server.client_channel import JSON_HEADER, ClientChannel
from gateway.server.client_request import ClientRequest
from gateway.server.routes import PoolDirectory
from gateway.server.status_page.assets import Asset, load_assets
from gateway.server.status_page.feed import MAX_VIEWERS, StatusFeed
from gateway.server.status_page.sampler import StatusSampler
from gateway.telemetry.json_text import encode_json
from gateway.telemetry.recent_requests import EndedRequest, RecentRequests, RequestOrder
from gateway.wire.error_response import ProtocolError, bad_request_answer, protocol_answer
from gateway.wire.openai_request import BadRequest

_NOT_STORED = JSON_HEADER + b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
_REQUESTS = "/live/requests"
_MOST_ROWS = 200
_LONGEST_SEARCH = 200


class StatusPages:
    """Answers GET and HEAD of the page and of what it asks for."""

    def __init__(
        self,
        *,
        pools: PoolDirectory,
        sampler: StatusSampler,
        feed: StatusFeed,
        recent: RecentRequests,
    ) -> None:
        self._pools = pools
        self._sampler = sampler
        self._feed = feed
        self._recent = recent
        self._assets = load_assets()

    async def answer(self, request: ClientRequest, channel: ClientChannel) -> bool:
        """Answer one request; False if it is not about the page."""
        if request.method not in ("GET", "HEAD"):
            return False
        path, _, query = request.target.partition("?")
        asset = self._assets.get(path)
        if asset is not None:
            _send_asset(asset, request, channel)
        elif path == "/live/state":
            channel.send(200, _NOT_STORED, self._sampler.state())
        elif path == "/live/history":
            channel.send(200, _NOT_STORED, self._sampler.history.since(0))
        elif path == "/live/events":
            await self._events(request, channel)
        elif path == _REQUESTS:
            self._rows(channel, query)
        elif path.startswith(_REQUESTS + "/"):
            self._request(channel, unquote(path.removeprefix(_REQUESTS + "/")))
        else:
            return False
        return True

    async def _events(self, request: ClientRequest, channel: ClientChannel) -> None:
        if request.method == "HEAD":
            channel.send(200, b"content-type: text/event-stream\r\n", b"")
        elif not await self._feed.watch(channel):
            told = {"error": {"message": f"{MAX_VIEWERS} pages are watching already."}}
            channel.send(503, _NOT_STORED + b"retry-after: 10\r\n", encode_json(told))

    def _rows(self, channel: ClientChannel, query: str) -> None:
        try:
            fields = parse_qs(query, max_num_fields=8)
        except ValueError:
            fault = BadRequest("Expected `search`, `limit` and `order`, and no more than 8 fields.")
            channel.send_answer(bad_request_answer(fault))
            return
        words = fields.get("search", [""])[0][:_LONGEST_SEARCH]
        limit = fields.get("limit", ["50"])[0]
        rows = min(_MOST_ROWS, int(limit)) if limit.isdecimal() and len(limit) < 9 else 50
        try:
            order = RequestOrder(fields.get("order", ["newest"])[0])
        except ValueError:
            fault = BadRequest(f"Expected an `order` of {', '.join(RequestOrder)}.")
            channel.send_answer(bad_request_answer(fault))
            return
        found = self._recent.first(limit=rows, words=words, order=order)
        told = {"kept": len(self._recent), "requests": [_row(ended) for ended in found]}
        channel.send(200, _NOT_STORED, encode_json(told))

    def _request(self, channel: ClientChannel, request_id: str) -> None:
        ended = self._recent.find(request_id)
        lease_id = request_id if ended is None else ended.record.lease_id
        explanation = self._explanation(lease_id)
        if ended is None and explanation is None:
            channel.send_answer(protocol_answer(ProtocolError.NOT_FOUND))
            return
        told = {"request": None if ended is None else _row(ended), "explanation": explanation}
        channel.send(200, _NOT_STORED, encode_json(told))

    def _explanation(self, lease_id: str) -> Explanation | None:
        for pool in self._pools.pools:
            explanation = pool.driver.explain(RequestId(lease_id))
            if explanation is not None:
                return explanation
        return None


def _row(ended: EndedRequest) -> dict[str, object]:
    record = ended.record
    return {"ended_at": ended.ended_at, "tpot_s": record.tpot_s, "record": record}


def _send_asset(asset: Asset, request: ClientRequest, channel: ClientChannel) -> None:
    if (request.header(b"if-none-match") or "").encode() == asset.etag:
        channel.send(304, asset.headers, b"")
    else:
        channel.send(200, asset.headers, asset.body)
