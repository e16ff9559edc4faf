"""`headwater deploy` on a real Prefect server: pools, deployments, and what has gone."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.responses import DeploymentResponse

from connectors.errors import ConfigurationError
from deployments import automations, deploy
from deployments.work_pools.pools import Kind, read_sizes
from tests.deployments.work_pools.test_templates import ENVIRONMENT, prefect_yaml


@pytest.fixture(autouse=True)
def server(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests' server, on which nothing is left."""
    for name, value in {**ENVIRONMENT, "PREFECT_API_URL": prefect_server}.items():  # `prefect deploy` is a process
        monkeypatch.setenv(name, value)
    yield
    with get_client(sync_client=True) as client:
        for each in client.read_deployments():
            if {"headwater", "theirs"} & set(each.tags):
                client.delete_deployment(each.id)
        for automation in client.read_automations():
            if automations.TAG in automation.tags:
                client.delete_automation(automation.id)


def add(name: str, *, entrypoint: str, tags: list[str]) -> None:
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("ingest")
        client.create_deployment(flow, name=name, entrypoint=entrypoint, tags=tags)


def deployments() -> dict[str, DeploymentResponse]:
    with get_client(sync_client=True) as client:
        found = [each for each in client.read_deployments() if {"headwater", "theirs"} & set(each.tags)]
    return {f"{each.entrypoint} {each.name}": each for each in found}


def test_a_pool_is_made_then_left_alone_then_made_as_it_was() -> None:
    assert deploy.ensure_work_pool(Kind.KUBERNETES) == "headwater-kubernetes"
    with get_client(sync_client=True) as client:
        made = client.read_work_pool("headwater-kubernetes")
        deploy.ensure_work_pool(Kind.KUBERNETES)
        assert client.read_work_pool("headwater-kubernetes") == made
        changed = copy.deepcopy(made.base_job_template)
        changed["variables"]["properties"]["finished_job_ttl"]["default"] = 5
        client.update_work_pool("headwater-kubernetes", WorkPoolUpdate(base_job_template=changed, concurrency_limit=3))
        deploy.ensure_work_pool(Kind.KUBERNETES)
        after = client.read_work_pool("headwater-kubernetes")
        assert after.base_job_template == made.base_job_template
        assert (after.id, after.concurrency_limit) == (made.id, 3)  # how many at once is the team's to say


def test_a_pool_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    deploy.ensure_work_pool(Kind.DOCKER)
    monkeypatch.setenv("HEADWATER_IMAGE", "registry.example/headwater:1.2.4")
    deploy.ensure_work_pool(Kind.DOCKER)
    with get_client(sync_client=True) as client:
        template = client.read_work_pool("headwater-docker").base_job_template
    assert template["variables"]["properties"]["image"]["default"] == "registry.example/headwater:1.2.4"


def test_a_pool_of_another_type_is_not_taken_over() -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="headwater-ecs", type="process"), overwrite=True)
        try:
            with pytest.raises(ConfigurationError, match="prefect work-pool delete headwater-ecs"):
                deploy.ensure_work_pool(Kind.ECS)
        finally:
            client.delete_work_pool("headwater-ecs")


def test_deploying_twice_changes_nothing_and_what_has_gone_goes() -> None:
    wanted = prefect_yaml()["deployments"]
    sizes = read_sizes()
    add("crm-db", entrypoint="flows.ingest.ingest", tags=["headwater", "ingest"])
    add("by-hand", entrypoint="flows.ingest.ingest", tags=["theirs"])
    deploy.ensure_work_pool(Kind.KUBERNETES)
    deploy.deploy_all(Kind.KUBERNETES)
    assert "flows.ingest.ingest crm-db" in deployments()
    assert deploy.prune() == ["ingest/crm-db"]
    first = deployments()
    assert set(first) == {f"{each['entrypoint']} {each['name']}" for each in wanted} | {"flows.ingest.ingest by-hand"}
    for each in wanted:
        found = first[f"{each['entrypoint']} {each['name']}"]
        size = each["work_pool"]["job_variables"].get("size", "small")
        assert found.work_pool_name == "headwater-kubernetes"
        assert sizes[size]["kubernetes"].items() <= found.job_variables.items()
        assert found.job_variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
        assert found.pull_steps in (None, [])
    deploy.deploy_all(Kind.KUBERNETES)
    assert deploy.prune() == []
    second = deployments()
    for name, before in first.items():
        after = second[name]
        same = ("id", "job_variables", "parameters", "tags", "work_pool_name", "concurrency_limit", "description")
        assert [getattr(after, field) for field in same] == [getattr(before, field) for field in same], name
        assert [(each.slug, each.schedule, each.active) for each in after.schedules] == [
            (each.slug, each.schedule, each.active) for each in before.schedules
        ]
