import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest

from gateway.discovery.kubernetes_source import KubernetesSource
from gateway.discovery.kubernetes_watch import Pace
from gateway.settings.discovery import KubernetesDiscovery
from tests.discovery.kubernetes_stub import (
    OBJECTIVES,
    PODS,
    POOLS,
    SLICES,
    Break,
    KubernetesStub,
    Step,
    inference_pool,
    objective,
    pod,
    slice_of,
)
from tests.discovery.reports import Seen
from tests.server.raw_server import eventually

A, B, C = "http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000"


class Clock:
    """Time as a test wants it: watches last as long as it says."""

    def __init__(self) -> None:
        self.step_s = 10.0
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


class Cluster(KubernetesStub):
    """The stub with a source that watches it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen("kubernetes")
        self.priorities: list[dict[str, int]] = []
        self.clock = Clock()

    @property
    def servers(self) -> dict[str, bool]:
        return self.seen.servers

    def has_only(self, url: str) -> bool:
        return self.servers == {url: False}

    def prioritize(self, priorities: Mapping[str, int]) -> None:
        self.priorities.append(dict(priorities))


@asynccontextmanager
async def watched(cluster: Cluster, **wanted: object) -> AsyncIterator[Cluster]:
    await cluster.start()
    nowhere = Path("/nonexistent")
    values = {
        "api_server": cluster.url,
        "token_file": nowhere,
        "namespace_file": nowhere,
        **wanted,
    }
    source = KubernetesSource(
        KubernetesDiscovery.model_validate(values),
        cluster.seen.report,
        prioritize=cluster.prioritize,
        pace=Pace(cluster.clock, Random(1), first_pause_s=0.001),
    )
    task = asyncio.create_task(source.run())
    try:
        yield cluster
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cluster.stop()


BY_LABEL: dict[str, object] = {"pods": "app=vllm", "port": 8000}


# -- pods -------------------------------------------------------------------------------------


async def test_pods_that_match_are_servers_and_those_not_ready_drain() -> None:
    cluster = Cluster()
    cluster.put(PODS, pod("a", "10.0.0.1"))
    cluster.put(PODS, pod("b", "10.0.0.2", ready=False))
    cluster.put(PODS, pod("pending", "", phase="Pending"))
    cluster.put(PODS, pod("done", "10.0.0.9", phase="Succeeded"))
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: cluster.servers == {A: False, B: True})
        assert cluster.lists[0][1]["labelSelector"] == "app=vllm"


async def test_pods_that_come_change_and_go_are_followed() -> None:
    cluster = Cluster()
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: cluster.watching(PODS))
        cluster.put(PODS, pod("a", "10.0.0.1", ready=False))
        await eventually(lambda: cluster.servers == {A: True})
        cluster.put(PODS, pod("a", "10.0.0.1"))
        await eventually(lambda: cluster.servers == {A: False})
        ending = pod("a", "10.0.0.1")
        assert isinstance(ending["metadata"], dict)
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        cluster.put(PODS, ending)
        await eventually(lambda: cluster.servers == {A: True})
        cluster.delete(PODS, "a")
        await eventually(lambda: cluster.servers == {})
        assert len(cluster.lists) == 1


async def test_long_lists_are_read_page_by_page() -> None:
    cluster = Cluster()
    cluster.page = 2
    for number in range(1, 6):
        cluster.put(PODS, pod(f"p{number}", f"10.0.0.{number}"))
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: len(cluster.servers) == 5)
        assert [query.get("continue") for _, query in cluster.lists] == [None, "2", "4"]


@pytest.mark.parametrize("how", [Break.RESET, Break.TORN])
async def test_after_a_break_everything_is_listed_again(how: Break) -> None:
    """What happened while nobody watched is seen, deletions among it."""
    cluster = Cluster()
    cluster.put(PODS, pod("a", "10.0.0.1"))
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: cluster.watching(PODS))
        cluster.tell(PODS, how)
        cluster.objects[PODS] = {}
        cluster.put(PODS, pod("b", "10.0.0.2"))
        await eventually(lambda: cluster.servers == {B: False})
        assert len(cluster.lists) == 2
        assert cluster.seen.report.errors == 1


async def test_an_expired_version_is_listed_again_and_is_no_error() -> None:
    cluster = Cluster()
    gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
    cluster.streams[PODS].append([{"type": "ERROR", "object": gone}])
    cluster.put(PODS, pod("a", "10.0.0.1"))
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: len(cluster.lists) == 2)
        assert cluster.seen.report.errors == 0
        cluster.put(PODS, pod("b", "10.0.0.2"))
        await eventually(lambda: cluster.servers == {A: False, B: False})


async def test_a_watch_that_is_refused_as_expired_is_listed_again() -> None:
    cluster = Cluster()
    cluster.streams[PODS].append([Break.END])
    async with watched(cluster, **BY_LABEL):
        cluster.refusals[PODS].append((410, "Expired"))
        await eventually(lambda: len(cluster.lists) == 1 and cluster.watching(PODS))
        assert cluster.seen.report.errors == 0


async def test_a_watch_that_ends_in_good_order_goes_on_at_the_newest_bookmark() -> None:
    cluster = Cluster()
    bookmark: Step = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "777"}}}
    cluster.streams[PODS].append([bookmark, Break.END])
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: len(cluster.watches) == 2)
        assert [query["resourceVersion"] for _, query in cluster.watches] == ["100", "777"]
        assert cluster.watches[0][1]["allowWatchBookmarks"] == "true"
        assert len(cluster.lists) == 1


async def test_a_watch_that_ends_at_once_is_not_asked_for_without_a_pause() -> None:
    cluster = Cluster()
    cluster.clock.step_s = 0.0001
    cluster.streams[PODS].extend([[Break.END]] * 3)
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: len(cluster.watches) == 4)
        assert len(cluster.lists) == 4


async def test_an_api_that_breaks_every_watch_but_answers_is_followed_closely() -> None:
    """Pauses that doubled at each break would last longer than anybody waits here."""
    cluster = Cluster()
    cluster.clock.step_s = 0.0  # no attempt lasts
    async with watched(cluster, **BY_LABEL):
        for number in range(1, 16):
            address = f"http://10.0.0.{number}:8000"
            await eventually(lambda: cluster.watching(PODS))
            cluster.tell(PODS, Break.RESET)
            cluster.put(PODS, pod("a", f"10.0.0.{number}"))
            await eventually(partial(cluster.has_only, address))


async def test_while_the_api_cannot_be_asked_the_servers_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster()
    cluster.put(PODS, pod("a", "10.0.0.1"))
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: cluster.servers)
        port = cluster.port
        await cluster.stop()
        await eventually(lambda: cluster.seen.report.errors >= 3)
        assert cluster.seen.told[-1] == {A: False}
        cluster.put(PODS, pod("b", "10.0.0.2"))
        await cluster.start(port)
        await eventually(lambda: cluster.servers == {A: False, B: False})
        assert caplog.text.count("what was found before stays") <= 2


async def test_a_refusal_is_told_with_the_words_of_the_api(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster()
    cluster.refusals[PODS].append((403, 'pods is forbidden: User "x" cannot list resource'))
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: cluster.watching(PODS))
        assert "403 pods is forbidden" in caplog.text


async def test_an_object_that_is_not_as_expected_changes_nothing() -> None:
    cluster = Cluster()
    cluster.put(PODS, pod("a", "10.0.0.1"))
    cluster.streams[PODS].append([{"type": "ADDED", "object": {"metadata": 5}}])
    async with watched(cluster, **BY_LABEL):
        await eventually(lambda: len(cluster.lists) == 2)
        assert cluster.seen.report.errors == 1
        assert cluster.servers == {A: False}


async def test_the_token_is_read_again_for_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    cluster = Cluster()
    async with watched(cluster, **BY_LABEL, token_file=token):
        await eventually(lambda: cluster.watching(PODS))
        token.write_text("second")
        cluster.tell(PODS, Break.RESET)
        await eventually(lambda: "Bearer second" in cluster.tokens)
        assert cluster.tokens[0] == "Bearer first"


async def test_a_token_that_cannot_be_read_is_told(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    async with watched(cluster, **BY_LABEL, api_server="https://127.0.0.1:9"):
        await eventually(lambda: cluster.seen.report.errors)
        assert "ca_file /var/run/secrets/kubernetes.io/serviceaccount/ca.crt" in caplog.text


async def test_the_namespace_is_the_pods_own_unless_one_is_wanted(tmp_path: Path) -> None:
    own = tmp_path / "namespace"
    own.write_text("prod\n")
    cluster = Cluster()
    async with watched(cluster, **BY_LABEL, namespace_file=own):
        await eventually(lambda: cluster.lists)
        assert cluster.lists[0][0] == "/api/v1/namespaces/prod/pods"
    cluster = Cluster()
    async with watched(cluster, **BY_LABEL, namespace_file=own, namespace="other"):
        await eventually(lambda: cluster.lists)
        assert cluster.lists[0][0] == "/api/v1/namespaces/other/pods"


# -- endpoint slices --------------------------------------------------------------------------


async def test_endpoints_of_a_service_are_servers_and_those_not_ready_drain() -> None:
    cluster = Cluster()
    cluster.put(SLICES, slice_of("x", ("10.0.0.1", True), ("10.0.0.2", False)))
    cluster.put(SLICES, slice_of("y", ("10.0.0.3", None), ("10.0.0.2", False)))
    async with watched(cluster, service="vllm"):
        await eventually(lambda: cluster.servers == {A: False, B: True, C: False})
        query = cluster.lists[0][1]
        assert query["labelSelector"] == "kubernetes.io/service-name=vllm"


async def test_an_endpoint_in_two_slices_is_ready_if_either_says_so() -> None:
    cluster = Cluster()
    cluster.put(SLICES, slice_of("x", ("10.0.0.1", False)))
    cluster.put(SLICES, slice_of("y", ("10.0.0.1", True)))
    cluster.put(SLICES, slice_of("z", ("10.0.0.1", False)))
    async with watched(cluster, service="vllm"):
        await eventually(lambda: cluster.servers == {A: False})


async def test_a_port_is_chosen_by_name_or_number() -> None:
    ports = [{"name": "http", "port": 8000}, {"name": "metrics", "port": 9000}]
    for port, url in (("metrics", "http://10.0.0.1:9000"), (7000, "http://10.0.0.1:7000")):
        cluster = Cluster()
        cluster.put(SLICES, slice_of("x", ("10.0.0.1", True), ports=ports))
        async with watched(cluster, service="vllm", port=port):
            await eventually(lambda: cluster.servers == {url: False})  # noqa: B023 - awaited here


async def test_a_port_that_cannot_be_told_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ports = [{"name": "http", "port": 8000}, {"name": "metrics", "port": 9000}]
    cluster = Cluster()
    cluster.put(SLICES, slice_of("x", ("10.0.0.1", True), ports=ports))
    async with watched(cluster, service="vllm"):
        await eventually(lambda: cluster.seen.report.errors)
        assert "has ports http (8000), metrics (9000); expected exactly one port" in caplog.text
        assert not cluster.seen.told


async def test_addresses_of_the_sixth_version_are_in_brackets() -> None:
    cluster = Cluster()
    cluster.put(SLICES, slice_of("x", ("fd00::1", True)))
    async with watched(cluster, service="vllm", scheme="https"):
        await eventually(lambda: cluster.servers == {"https://[fd00::1]:8000": False})


# -- inference pools --------------------------------------------------------------------------


async def test_an_inference_pool_names_pods_ports_and_priorities() -> None:
    cluster = Cluster()
    cluster.put(POOLS, inference_pool("llama", {"app": "vllm", "tier": "gpu"}, 8000, 8001))
    cluster.put(POOLS, inference_pool("other", {"app": "x"}, 1))
    cluster.put(PODS, pod("a", "10.0.0.1"))
    cluster.put(OBJECTIVES, objective("chat", "llama", 10))
    cluster.put(OBJECTIVES, objective("batch", "llama", None))
    cluster.put(OBJECTIVES, objective("elsewhere", "other", 3))
    async with watched(cluster, inference_pool="llama"):
        await eventually(lambda: cluster.servers == {A: False, "http://10.0.0.1:8001": False})
        await eventually(lambda: cluster.priorities == [{"batch": 0, "chat": 10}])
        selectors = [query.get("labelSelector") for path, query in cluster.lists if path == PODS]
        assert selectors == ["app=vllm,tier=gpu"]


async def test_a_pool_that_changes_is_followed() -> None:
    cluster = Cluster()
    cluster.put(POOLS, inference_pool("llama", {"app": "vllm"}, 8000))
    cluster.put(PODS, pod("a", "10.0.0.1"))
    async with watched(cluster, inference_pool="llama"):
        await eventually(lambda: cluster.servers == {A: False} and cluster.watching(POOLS))
        cluster.put(POOLS, inference_pool("llama", {"app": "vllm"}, 9000))
        await eventually(lambda: cluster.servers == {"http://10.0.0.1:9000": False})
        await eventually(lambda: cluster.watching(PODS) == 1)


async def test_a_pool_that_vanishes_keeps_its_last_servers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster()
    cluster.put(POOLS, inference_pool("llama", {"app": "vllm"}, 8000))
    cluster.put(PODS, pod("a", "10.0.0.1"))
    async with watched(cluster, inference_pool="llama"):
        await eventually(lambda: cluster.servers == {A: False} and cluster.watching(POOLS))
        cluster.delete(POOLS, "llama")
        await eventually(lambda: cluster.seen.report.errors)
        assert "llama does not exist; what was found before stays" in caplog.text
        cluster.put(PODS, pod("b", "10.0.0.2"))
        await eventually(lambda: cluster.servers == {A: False, B: False})


async def test_a_pool_that_selects_nothing_is_not_taken_for_one_that_selects_everything() -> None:
    cluster = Cluster()
    cluster.put(POOLS, inference_pool("llama", {}, 8000))
    async with watched(cluster, inference_pool="llama"):
        await eventually(lambda: cluster.seen.report.errors)
        assert not [path for path, _ in cluster.lists if path == PODS]


async def test_objectives_that_cannot_be_read_do_not_hold_up_the_servers() -> None:
    cluster = Cluster()
    cluster.refusals[OBJECTIVES].extend([(404, "the server could not find it")] * 50)
    cluster.put(POOLS, inference_pool("llama", {"app": "vllm"}, 8000))
    cluster.put(PODS, pod("a", "10.0.0.1"))
    async with watched(cluster, inference_pool="llama"):
        await eventually(lambda: cluster.servers == {A: False})
        await eventually(lambda: cluster.seen.report.errors)


async def test_priorities_change_with_their_objectives() -> None:
    cluster = Cluster()
    cluster.put(OBJECTIVES, objective("chat", "llama", 10))
    async with watched(cluster, inference_pool="llama"):
        await eventually(lambda: cluster.watching(OBJECTIVES))
        cluster.put(OBJECTIVES, objective("chat", "llama", -1))
        await eventually(lambda: cluster.priorities[-1] == {"chat": -1})
        cluster.delete(OBJECTIVES, "chat")
        await eventually(lambda: cluster.priorities[-1] == {})
