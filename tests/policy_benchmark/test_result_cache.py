from pathlib import Path

from gateway.policy_benchmark.result_cache import ResultCache, code_fingerprint


def test_a_result_is_found_again_by_its_inputs(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path / "cache", "code")
    key = cache.key(["workload", "0.9"])
    assert cache.find(key) is None
    cache.store(key, {"attainment": 0.5})
    assert cache.find(key) == {"attainment": 0.5}


def test_other_inputs_or_other_code_have_another_key(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path, "code")
    keys = {
        cache.key(["a", "b"]),
        cache.key(["ab", ""]),
        cache.key(["a", "c"]),
        ResultCache(tmp_path, "changed").key(["a", "b"]),
    }
    assert len(keys) == 4


def test_a_broken_file_counts_as_none(tmp_path: Path) -> None:
    cache = ResultCache(tmp_path, "code")
    (tmp_path / "k.json").write_text('{"half')
    assert cache.find("k") is None


def test_without_a_directory_nothing_is_kept() -> None:
    cache = ResultCache(None, "code")
    cache.store("k", {"attainment": 1.0})
    assert cache.find("k") is None


def test_the_code_has_one_fingerprint() -> None:
    assert code_fingerprint() == code_fingerprint()
