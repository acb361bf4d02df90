import asyncio

from benchmarks.fuzz.api import ask_everything
from gateway.server.openapi import api_description
from tests.live.in_process_site import site_in_process


async def test_requests_made_from_the_description_are_answered_as_it_says() -> None:
    async with site_in_process(servers=1, settings={"queue_timeout": 0.05}) as site:
        urls = {"clients": f"http://127.0.0.1:{site.port}", "administration": site.admin_url}
        answers = await asyncio.to_thread(ask_everything, urls, examples=3)
        operations = {label.rpartition(" ")[0] for label in answers}
        paths = api_description()["paths"]
        assert len(operations) == sum(
            len(methods.keys() & {"get", "post", "patch", "delete"}) for methods in paths.values()
        )
        async with site.http.get(f"{site.admin_url}/openapi.json") as response:
            assert await response.json() == api_description()
