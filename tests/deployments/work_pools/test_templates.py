"""The templates of the work pools: that they are what Prefect's workers understand, and say what is missing."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from connectors.errors import ConfigurationError
from deployments.work_pools.pools import (
    KIND_VARIABLE,
    Kind,
    WorkPool,
    placed,
    read_sizes,
    read_template,
    work_pool,
)

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {
    "HEADWATER_IMAGE": "registry.example/headwater:1.2.3",
    "HEADWATER_ECS_CLUSTER": "data",
    "HEADWATER_ECS_SUBNETS": "subnet-1, subnet-2",
    "HEADWATER_ECS_EXECUTION_ROLE_ARN": "arn:aws:iam::123456789012:role/execution",
    "HEADWATER_ECS_TASK_ROLE_ARN": "arn:aws:iam::123456789012:role/task",
    "HEADWATER_ECS_AUTH_STRING_SECRET_ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:prefect-a",
}
WORKERS = {
    Kind.PROCESS: "prefect.workers.process:ProcessWorker",
    Kind.DOCKER: "prefect_docker.worker:DockerWorker",
    Kind.ECS: "prefect_aws.workers:ECSWorker",
    Kind.KUBERNETES: "prefect_kubernetes.worker:KubernetesWorker",
}
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html: MiB by CPU units.
FARGATE = {
    256: {512, 1024, 2048},
    512: set(range(1024, 4097, 1024)),
    1024: set(range(2048, 8193, 1024)),
    2048: set(range(4096, 16385, 1024)),
    4096: set(range(8192, 30721, 1024)),
}


def worker_of(kind: Kind) -> Any:
    module, name = WORKERS[kind].split(":")
    return getattr(importlib.import_module(module), name)


def pool_of(kind: Kind) -> WorkPool:
    return work_pool(kind, ENVIRONMENT)


def placeholders(value: Any) -> set[str]:
    return set(re.findall(r"{{\s*(\w+)\s*}}", yaml.safe_dump(value)))


def prefect_yaml() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    return content


@pytest.mark.parametrize("kind", Kind)
def test_a_template_sets_what_the_worker_of_its_kind_knows(kind: Kind) -> None:
    worker = worker_of(kind)
    pool = pool_of(kind)
    default = worker.get_default_base_job_template()
    assert pool.type == worker.type
    assert pool.template["job_configuration"].keys() <= default["job_configuration"].keys()
    # What is not ours by name means what it means to Prefect.
    known = default["variables"]["properties"]
    for name, variable in pool.template["variables"]["properties"].items():
        if name in known and "type" in known[name]:
            assert variable["type"] == known[name]["type"], name


@pytest.mark.parametrize("kind", Kind)
def test_every_variable_is_used_and_every_placeholder_is_a_variable(kind: Kind) -> None:
    template = pool_of(kind).template
    assert placeholders(template["job_configuration"]) == set(template["variables"]["properties"])


@pytest.mark.parametrize("kind", Kind)
def test_the_variables_are_a_schema_that_their_defaults_keep(kind: Kind) -> None:
    schema = pool_of(kind).template["variables"]
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, variable in schema["properties"].items():
        if "default" in variable:
            jsonschema.validate(variable["default"], variable)
        assert "title" in variable, name


@pytest.mark.parametrize("kind", [Kind.DOCKER, Kind.ECS, Kind.KUBERNETES])
def test_all_that_is_missing_in_the_environment_is_named_at_once(kind: Kind) -> None:
    needed = {read_template(kind)["variables"][name]["environment"] for name in read_template(kind)["required"]}
    with pytest.raises(ConfigurationError) as caught:
        work_pool(kind, {})
    assert needed <= set(re.findall(r"HEADWATER_\w+", str(caught.value)))
    one = min(needed)
    with pytest.raises(ConfigurationError, match=one):
        work_pool(kind, {name: value for name, value in ENVIRONMENT.items() if name != one})


def test_lists_are_given_with_commas() -> None:
    assert pool_of(Kind.ECS).template["variables"]["properties"]["subnets"]["default"] == ["subnet-1", "subnet-2"]


def test_sizes_are_of_variables_that_the_templates_have() -> None:
    for size, by_kind in read_sizes().items():
        assert set(by_kind) == {"docker", "ecs", "kubernetes"}, size
        for kind, variables in by_kind.items():
            properties = pool_of(Kind(kind)).template["variables"]["properties"]
            for name, value in variables.items():
                jsonschema.validate(value, properties[name])


def test_fargate_has_tasks_of_these_sizes() -> None:
    for size, by_kind in read_sizes().items():
        assert by_kind["ecs"]["memory"] in FARGATE[by_kind["ecs"]["cpu"]], size


def test_a_size_is_the_same_amount_everywhere() -> None:
    for size, by_kind in read_sizes().items():
        memory = {
            by_kind["docker"]["mem_limit"].removesuffix("m"),
            str(by_kind["ecs"]["memory"]),
            by_kind["kubernetes"]["memory"].removesuffix("Mi"),
        }
        request = by_kind["kubernetes"]["cpu_request"]
        cpu = {
            by_kind["docker"]["nano_cpus"] / 1e9,
            by_kind["ecs"]["cpu"] / 1024,
            int(request[:-1]) / 1000 if request.endswith("m") else float(request),
        }
        assert len(memory) == len(cpu) == 1, size


def test_what_a_template_has_for_a_run_that_has_no_size_is_the_small_one() -> None:
    for kind, variables in read_sizes()["small"].items():
        properties = pool_of(Kind(kind)).template["variables"]["properties"]
        for name, value in variables.items():
            if name != "family":
                assert properties[name]["default"] == value


@pytest.mark.parametrize("kind", Kind)
def test_placing_changes_the_pool_and_what_a_size_means_there(kind: Kind) -> None:
    before = prefect_yaml()
    after = placed(before, kind)
    assert before == prefect_yaml()
    for old, new in zip(before["deployments"], after["deployments"], strict=True):
        assert {**old, "work_pool": None} == {**new, "work_pool": None}
        assert new["work_pool"]["name"] == kind.pool
        variables = dict(new["work_pool"]["job_variables"])
        size = old["work_pool"]["job_variables"].get("size", "small")
        for name, value in read_sizes()[size].get(kind, {}).items():
            assert variables.pop(name) == value
        assert variables == old["work_pool"]["job_variables"]
    if kind is Kind.PROCESS:
        assert after == before


def test_what_runs_dbt_is_large() -> None:
    large = {
        each["entrypoint"]
        for each in prefect_yaml()["deployments"]
        if each["work_pool"]["job_variables"].get("size") == "large"
    }
    assert large == {
        "flows.transform.transform",
        "flows.pipeline.pipeline",
        "flows.backfill.backfill",
        "flows.backfill.backfill_helper",
        "flows.backfill.catch_up",
    }


def test_a_size_that_is_none_is_refused() -> None:
    content = prefect_yaml()
    content["deployments"][0]["work_pool"]["job_variables"]["size"] = "huge"
    with pytest.raises(ConfigurationError, match="small, large"):
        placed(content, Kind.ECS)


def test_every_variable_of_the_environment_is_documented() -> None:
    page = (ROOT / "docs/work-pools.md").read_text()
    documented = set(re.findall(r"^\| `((?:HEADWATER|AWS)_\w+)` \|", page, re.MULTILINE))
    read = {
        variable["environment"]
        for kind in Kind
        for variable in read_template(kind)["variables"].values()
        if "environment" in variable
    }
    assert documented == read | {KIND_VARIABLE}


def test_kubernetes_takes_the_worker_which_fits_its_pool() -> None:
    documents = list(yaml.safe_load_all((ROOT / "deployments/work_pools/kubernetes_worker.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, "1.33", strict=True)
    defaults = {name: each.get("default") for name, each in read_template(Kind.KUBERNETES)["variables"].items()}
    names = {f"{each['kind']} {each['metadata']['name']}" for each in documents}
    assert f"Namespace {defaults['namespace']}" in names
    assert f"ServiceAccount {defaults['service_account_name']}" in names
    worker = next(each for each in documents if each["kind"] == "Deployment")
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    assert Kind.KUBERNETES.pool in container["args"]
    secrets = [each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"] if "valueFrom" in each]
    assert secrets == [defaults["auth_secret"]]
    # What it has no right to it cannot do: the kinds that Prefect's worker makes and looks at.
    role = next(each for each in documents if each["kind"] == "Role")
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {
        *("jobs", "pods", "pods/log", "events"),
    }
