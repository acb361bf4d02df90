import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from gateway.settings.checks import warnings
from gateway.settings.loading import load_file, load_settings

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "config" / "kubernetes"
CUSTOM = {"monitoring.coreos.com"}
"""API groups that are no part of Kubernetes itself."""

pytestmark = pytest.mark.usefixtures("clean_environment")


def manifests() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path.name not in {"kustomization.yaml", "gateway.yaml"} and "patch" not in path.name:
            for document in yaml.safe_load_all(path.read_text()):
                yield path, document


def of_kind(kind: str) -> Iterator[Mapping[str, Any]]:
    return (document for _, document in manifests() if document["kind"] == kind)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(document, id=f"{path.parent.name}-{document['kind']}-{number}")
        for number, (path, document) in enumerate(manifests())
        if document["apiVersion"].partition("/")[0] not in CUSTOM
    ],
)
@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_manifests_are_valid(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("path", sorted(KUBERNETES.rglob("kustomization.yaml")), ids=str)
def test_kustomizations_name_files_that_exist(path: Path) -> None:
    kustomization = yaml.safe_load(path.read_text())
    files = [*kustomization.get("resources", ())]
    files += [patch["path"] for patch in kustomization.get("patches", ()) if "path" in patch]
    for generator in kustomization.get("configMapGenerator", ()):
        files += [name.partition("=")[2] or name for name in generator["files"]]
    assert [name for name in files if not (path.parent / name).exists()] == []
    unused = {
        each.name for each in path.parent.iterdir() if each.is_file() and each.name not in files
    }
    assert unused == {"kustomization.yaml"}


@pytest.mark.parametrize("path", sorted(KUBERNETES.rglob("gateway.yaml")), ids=str)
def test_the_configurations_are_valid_and_give_no_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = next(of_kind("Deployment"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        if "valueFrom" in variable:
            monkeypatch.setenv(variable["name"], "from-the-secret-of-the-cluster")
    assert list(warnings(load_settings({}, path))) == []


def test_pods_outlive_the_grace_that_requests_are_given() -> None:
    grace_s = load_file(KUBERNETES / "base" / "gateway.yaml").drain_timeout
    deployment = next(of_kind("Deployment"))
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > grace_s + 5


def test_selectors_name_the_labels_of_the_pods() -> None:
    deployment = next(of_kind("Deployment"))
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    for service in of_kind("Service"):
        assert service["spec"]["selector"].items() <= labels
    for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        for document in of_kind(kind):
            assert document["spec"][field]["matchLabels"].items() <= labels


def test_compose_runs_the_image_without_rights() -> None:
    path = ROOT / "config" / "compose" / "docker-compose.yaml"
    gateway = yaml.safe_load(path.read_text())["services"]["gateway"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    mounted = re.findall(r"- (\./[^:]+|\.\./[^:]+):", path.read_text())
    assert [name for name in mounted if not (path.parent / name).exists()] == []


def recipes() -> Iterator[str]:
    """The configurations in the recipes; what is indented belongs below `services`."""
    text = (ROOT / "docs" / "recipes.md").read_text()
    text += (ROOT / "docs" / "index.md").read_text()
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        head = "pools:\n  - name: p\n    servers: [http://a:1]\n    services:\n"
        yield head + block if block.startswith(" ") else block


@pytest.mark.parametrize("text", list(recipes()))
def test_recipes_are_valid_and_give_no_warning(text: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    assert list(warnings(load_file(path))) == []
