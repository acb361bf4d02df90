from random import Random

from gateway.policy_benchmark.baselines.server_view import ServerView, estimated_tokens, least
from gateway.scheduling.model import BackendId
from tests.policy_benchmark.baselines.baseline_rig import request


def test_a_match_ends_at_the_first_block_that_is_not_there() -> None:
    server = ServerView(BackendId("a"))
    server.remember(request("r1", blocks=(1, 2, 3, 4)))
    assert server.matched_share(request("r2", blocks=(1, 2, 9, 4))) == 0.5


def test_prefixes_of_another_adapter_do_not_match() -> None:
    server = ServerView(BackendId("a"))
    server.remember(request("r1", model="x", blocks=(1, 2)))
    assert server.matched_share(request("r2", model="y", blocks=(1, 2))) == 0.0


def test_the_least_recently_used_blocks_are_forgotten() -> None:
    server = ServerView(BackendId("a"))
    server.remember(request("r1", blocks=(-1,)))
    server.remember(request("r2", blocks=tuple(range(100_000))))
    assert server.matched_share(request("r3", blocks=(-1,))) == 0.0


def test_tokens_are_estimated_from_bytes() -> None:
    assert estimated_tokens(request("r1", prompt_tokens=1000)) == 1000


def test_least_picks_the_smallest_value() -> None:
    servers = [ServerView(BackendId(name)) for name in "abc"]
    for server, load in zip(servers, (3, 1, 2), strict=True):
        server.outstanding = load
    assert least(servers, lambda s: s.outstanding, Random(1)).id == "b"
