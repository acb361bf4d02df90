import json

import pytest

from gateway.scheduling.model import Forecast, LatencyObjective
from gateway.telemetry.json_text import encode_json


@pytest.mark.parametrize("name", ["plain", "\ud800"])
def test_dataclasses_and_named_tuples_are_objects_whatever_the_text(name: str) -> None:
    value = {"name": name, "all": [LatencyObjective(ttft_s=1.0), Forecast(1.0, 2.0, 3.0, 4.0)]}
    told = json.loads(encode_json(value))
    assert told["name"] == name
    assert told["all"][0]["ttft_s"] == 1.0
    assert told["all"][1]["tpot_p90_s"] == 4.0


def test_what_is_no_data_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        encode_json({"a": object()})
