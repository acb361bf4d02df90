"""The model of an engine's prefills, against an engine that is stepped through."""

from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.prefill_queue import PrefillQueue

BASE_S = 0.01
PER_TOKEN_S = 0.0001
ROOM = 100


class Ahead(NamedTuple):
    elapsed_s: float
    steps: int
    tokens: int


def ahead_of(queue: PrefillQueue, own_tokens: int, *, now: float) -> Ahead:
    return Ahead(
        *queue.ahead_of(own_tokens, now=now, base_s=BASE_S, per_token_s=PER_TOKEN_S, room=ROOM)
    )


def chunk_seen(queue: PrefillQueue, at: float) -> None:
    queue.chunk_seen(at, base_s=BASE_S, per_token_s=PER_TOKEN_S, room=ROOM)


def seconds(forecast: Ahead) -> float:
    return forecast.steps * BASE_S - forecast.elapsed_s + forecast.tokens * PER_TOKEN_S


@dataclass
class Engine:
    """Decodes all the time, and prefills in the order of arrival, at most ROOM tokens a step."""

    now: float = 0.0
    step_ends_at: float = 0.0
    waiting: list[list[int]] = field(default_factory=list)  # [request, tokens left]
    in_step: dict[int, int] = field(default_factory=dict)  # request -> tokens
    arrived: list[list[int]] = field(default_factory=list)

    def begin_step(self) -> None:
        self.waiting += self.arrived
        self.arrived = []
        room = ROOM
        self.in_step = {}
        for request, left in self.waiting:
            tokens = min(room, left)
            if tokens:
                self.in_step[request] = tokens
                room -= tokens
        self.step_ends_at = self.now + BASE_S + PER_TOKEN_S * sum(self.in_step.values())

    def end_step(self) -> list[int]:
        """Requests whose prefill has ended."""
        self.now = self.step_ends_at
        for entry in self.waiting:
            entry[1] -= self.in_step.get(entry[0], 0)
        ended = [request for request, left in self.waiting if not left]
        self.waiting = [entry for entry in self.waiting if entry[1]]
        self.begin_step()
        return ended

    def first_token_at(self, request: int) -> float:
        """Run on until the request's prefill has ended."""
        while request not in self.end_step():
            pass
        return self.now


@given(
    steps=st.lists(
        st.lists(st.tuples(st.floats(0.05, 0.95), st.integers(1, 350)), max_size=3),
        min_size=1,
        max_size=12,
    ),
    own_tokens=st.integers(1, 350),
    asked_at=st.floats(0.05, 0.95),
)
def test_a_first_token_comes_when_an_engine_stepped_through_would_give_it(
    steps: list[list[tuple[float, int]]], own_tokens: int, asked_at: float
) -> None:
    """Requests arrive at some part of each step; a chunk marks the end of every step."""
    engine, queue = Engine(), PrefillQueue()
    engine.begin_step()
    number = 0
    for arrivals in steps:
        for part, tokens in sorted(arrivals):
            at = engine.now + part * (engine.step_ends_at - engine.now)
            queue.add(tokens, now=at, busy=True)
            engine.arrived.append([number, tokens])
            number += 1
        engine.end_step()
        chunk_seen(queue, engine.now)
    now = engine.now + asked_at * (engine.step_ends_at - engine.now)
    forecast = ahead_of(queue, own_tokens, now=now)
    engine.arrived.append([number, own_tokens])
    assert seconds(forecast) == pytest.approx(engine.first_token_at(number) - now)


def test_an_idle_engine_begins_with_a_request_at_once() -> None:
    queue = PrefillQueue()
    queue.add(30, now=5.0, busy=False)
    forecast = ahead_of(queue, 20, now=5.004)
    assert forecast.elapsed_s == pytest.approx(0.004)
    assert (forecast.steps, forecast.tokens) == (2, 50)


def test_a_request_that_comes_during_a_step_joins_the_next_one() -> None:
    queue = PrefillQueue()
    queue.add(30, now=0.0, busy=False)
    queue.add(40, now=0.001, busy=True)
    forecast = ahead_of(queue, 60, now=0.001)
    assert forecast.elapsed_s == pytest.approx(0.001)
    assert (forecast.steps, forecast.tokens) == (2, 130)
    assert ahead_of(queue, 61, now=0.001).steps == 3


def test_a_long_prompt_takes_a_step_for_each_part() -> None:
    assert ahead_of(PrefillQueue(), 1_000, now=0.0).steps == 1 + 10


def test_steps_without_a_chunk_are_made_up_for_by_the_next_one() -> None:
    queue = PrefillQueue()
    queue.add(250, now=0.0, busy=False)
    chunk_seen(queue, 2 * (BASE_S + ROOM * PER_TOKEN_S))  # two full steps, one chunk
    assert queue.in_step + queue.after == 50


def test_a_chunk_of_the_step_before_takes_nothing_off() -> None:
    queue = PrefillQueue()
    queue.add(50, now=1.0, busy=False)
    for at in (1.0, 0.999):
        chunk_seen(queue, at)
        assert (queue.step_began_at, queue.in_step, queue.after) == (1.0, 50, 0)


@pytest.mark.parametrize(
    ("unfinished", "left"),
    [(920, 900), (1_500, 1_400), (500, 500), (70, 70)],
)
def test_a_first_token_corrects_what_is_left(unfinished: int, left: int) -> None:
    """At most a step's room of the prompts without a first token can have been prefilled."""
    queue = PrefillQueue()
    queue.add(500, now=0.0, busy=False)
    queue.add(500, now=0.001, busy=True)
    chunk_seen(queue, 0.02)
    queue.first_token_seen(unfinished, now=0.02, room=ROOM)
    assert (queue.in_step, queue.after, queue.step_began_at) == (left, 0, 0.02)
    assert queue.taken == 1_000 - left


def test_a_request_that_leaves_takes_its_prefill_along() -> None:
    queue = PrefillQueue()
    queue.add(30, now=0.0, busy=False)
    queue.add(40, now=0.001, busy=True)
    queue.remove(40)
    assert queue.in_step + queue.after == 30
    queue.remove(30)
    assert queue.in_step + queue.after == 0
    queue.remove(30)
    assert queue.in_step + queue.after == 0


def test_a_prefill_that_takes_longer_than_forecast_is_about_to_end() -> None:
    queue = PrefillQueue()
    queue.add(100, now=0.0, busy=False)  # a step of 20 ms
    late = ahead_of(queue, 1, now=0.5)
    assert late.elapsed_s == pytest.approx(0.02 - 0.1 * BASE_S)


def test_without_chunks_decoding_is_taken_to_go_on_in_steps() -> None:
    assert ahead_of(PrefillQueue(), 1, now=0.034).elapsed_s == pytest.approx(0.004)
