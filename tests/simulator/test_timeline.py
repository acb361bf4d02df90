from functools import partial

from gateway.simulator.timeline import Timeline


def test_things_happen_in_order_of_time_and_equal_ones_in_order_of_coming() -> None:
    timeline = Timeline()
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, timeline.now))

    for instant, name in ((2.0, "b"), (1.0, "a"), (2.0, "c")):
        timeline.at(instant, partial(note, name))
    while timeline.next_at() is not None:
        timeline.run_next()
    assert seen == [("a", 1.0), ("b", 2.0), ("c", 2.0)]


def test_after_counts_from_now() -> None:
    timeline = Timeline()
    timeline.at(5.0, lambda: timeline.after(1.5, lambda: None))
    timeline.run_next()
    assert timeline.next_at() == 6.5


def test_an_empty_timeline_has_no_next() -> None:
    assert Timeline().next_at() is None
