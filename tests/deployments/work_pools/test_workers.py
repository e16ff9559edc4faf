"""Prefect's own workers take a run from a pool of ours and start it: on moto's ECS, and on stand-ins for Kubernetes and
Docker that keep what they were asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from kubernetes_asyncio.config import kube_config
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from deployments.deploy import ensure_work_pool
from deployments.work_pools.pools import Kind, placed
from tests.deployments.work_pools.stand_ins import CONTAINER_ID, docker_engine, kubernetes_api
from tests.deployments.work_pools.test_templates import ENVIRONMENT, prefect_yaml, worker_of

AUTH = "admin:canary-4f6d0c"
SERVER = "http://prefect.example:4200/api"


@pytest.fixture(autouse=True)
def environment(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def scheduled_run(kind: Kind, entrypoint: str) -> FlowRun:
    """A run, due now, of a deployment of prefect.yaml that is placed on the pool of a kind."""
    pool = ensure_work_pool(kind)
    wanted = next(each for each in placed(prefect_yaml(), kind)["deployments"] if each["entrypoint"] == entrypoint)
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name(f"a-{kind}-{uuid4().hex[:6]}")
        deployment = client.create_deployment(
            flow,
            name=wanted["name"],
            entrypoint=entrypoint,
            work_pool_name=pool,
            job_variables=wanted["work_pool"]["job_variables"],
            pull_steps=[],
        )
        return client.create_flow_run_from_deployment(deployment)


def submit(kind: Kind, run: FlowRun) -> None:
    """The kind's worker looks for work once, as one that has a password does, and starts what it finds."""

    async def once() -> None:
        async with worker_of(kind)(work_pool_name=kind.pool) as worker:
            await worker.sync_with_backend()
            await worker.get_and_submit_flow_runs()

    # What runs are told of the server is what their worker was told, the password included unless somebody sees to it.
    with temporary_settings({PREFECT_API_AUTH_STRING: AUTH}):
        asyncio.run(once())
    with get_client(sync_client=True) as client:
        after = client.read_flow_run(run.id)
        assert after.state is not None
        assert after.state.is_pending(), after.state
        assert after.infrastructure_pid


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An AWS on loopback with the cluster and two subnets, and a way to its services."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    subnets = [each["SubnetId"] for each in boto3.client("ec2").describe_subnets()["Subnets"][:2]]
    monkeypatch.setenv("HEADWATER_ECS_SUBNETS", ",".join(subnets))
    boto3.client("ecs").create_cluster(clusterName="data")
    yield boto3.client
    server.stop()


def environment_of(items: list[dict[str, str]]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in items if "value" in each}


def test_ecs_runs_a_task_with_a_secret_and_no_password(aws: Any) -> None:
    ecs = aws("ecs")
    run = scheduled_run(Kind.ECS, "flows.transform.transform")
    submit(Kind.ECS, run)
    (arn,) = ecs.list_tasks(cluster="data")["taskArns"]
    (task,) = ecs.describe_tasks(cluster="data", tasks=[arn])["tasks"]
    definition = ecs.describe_task_definition(taskDefinition=task["taskDefinitionArn"])["taskDefinition"]
    assert (definition["family"], definition["cpu"], definition["memory"]) == ("headwater-large", "2048", "4096")
    assert definition["networkMode"] == "awsvpc"
    assert definition["taskRoleArn"] == ENVIRONMENT["HEADWATER_ECS_TASK_ROLE_ARN"]
    assert definition["executionRoleArn"] == ENVIRONMENT["HEADWATER_ECS_EXECUTION_ROLE_ARN"]
    (container,) = definition["containerDefinitions"]
    assert container["image"] == ENVIRONMENT["HEADWATER_IMAGE"]
    assert container["readonlyRootFilesystem"] is True
    assert container["stopTimeout"] == 120
    assert container["logConfiguration"]["options"]["awslogs-group"] == "headwater"
    assert container["secrets"] == [
        {"name": "PREFECT_API_AUTH_STRING", "valueFrom": ENVIRONMENT["HEADWATER_ECS_AUTH_STRING_SECRET_ARN"]}
    ]
    (override,) = task["overrides"]["containerOverrides"]
    assert override["command"] == ["prefect", "flow-run", "execute"]
    told = environment_of(override["environment"])
    assert told["PREFECT__FLOW_RUN_ID"] == str(run.id)
    assert told["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert told["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert AUTH not in json.dumps([task, definition], default=str)

    # A run that is alike gets no definition of its own.
    submit(Kind.ECS, scheduled_run(Kind.ECS, "flows.transform.transform"))
    assert ecs.list_task_definitions()["taskDefinitionArns"] == [task["taskDefinitionArn"]]
    assert len(ecs.list_tasks(cluster="data")["taskArns"]) == 2


def test_kubernetes_is_given_a_job_that_it_takes_and_that_holds_no_password(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_ENABLED", "false")
    with kubernetes_api() as api:
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "a", "cluster": {"server": f"http://{api.host}"}}],
            "users": [{"name": "a", "user": {"token": "a"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
        (tmp_path / "config").write_text(yaml.safe_dump(configuration))
        # Of KUBECONFIG when the client was imported, which may have been long ago.
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
        run = scheduled_run(Kind.KUBERNETES, "flows.transform.transform")
        submit(Kind.KUBERNETES, run)
    (job,) = api.bodies("POST", "/apis/batch/v1/namespaces/headwater/jobs")
    pod = job["spec"]["template"]["spec"]
    # Prefect insists on these two in a place where Kubernetes has none; an API server leaves them out.
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    kubernetes_validate.validate(job, "1.33", strict=True)
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] == 86_400
    assert pod["serviceAccountName"] == "headwater-run"
    assert pod["terminationGracePeriodSeconds"] == 120
    (container,) = pod["containers"]
    assert container["image"] == ENVIRONMENT["HEADWATER_IMAGE"]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert "command" not in container  # it would take the place of tini, which is the image's entry point
    assert container["resources"]["requests"]["cpu"] == "2"
    assert container["resources"]["limits"]["memory"] == "4096Mi"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    passwords = [each for each in container["env"] if each["name"] == "PREFECT_API_AUTH_STRING"]
    assert passwords == [
        {
            "name": "PREFECT_API_AUTH_STRING",
            "valueFrom": {"secretKeyRef": {"name": "headwater-prefect-api", "key": "auth-string"}},
        }
    ]
    told = environment_of(container["env"])
    assert told["PREFECT__FLOW_RUN_ID"] == str(run.id)
    assert told["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert told["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert AUTH not in json.dumps(job)


def test_docker_creates_a_container_that_may_do_little_and_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with docker_engine() as engine:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{engine.host}")
        run = scheduled_run(Kind.DOCKER, "flows.ingest.ingest")
        submit(Kind.DOCKER, run)
    (created,) = [each for each in engine.asked if each.path.endswith("/containers/create")]
    assert any(each.path.endswith(f"/containers/{CONTAINER_ID}/start") for each in engine.asked)
    body, host = created.body, created.body["HostConfig"]
    assert body["Image"] == ENVIRONMENT["HEADWATER_IMAGE"]
    assert body["Cmd"] == ["prefect", "flow-run", "execute"]
    assert body.get("Entrypoint") is None  # the image's: tini
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["AutoRemove"] is True
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (1024 << 20, 1024 << 20, 500_000_000)
    assert host["Binds"] == ["/etc/headwater/prefect.toml:/opt/headwater/prefect.toml:ro"]
    told = dict(each.split("=", 1) for each in body["Env"])
    assert told["PREFECT__FLOW_RUN_ID"] == str(run.id)
    assert told["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert told["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert "PREFECT_API_AUTH_STRING" not in told
    assert AUTH not in json.dumps(body)
    networks = [each for each in engine.asked if each.path.endswith("/networks/headwater_default/connect")]
    assert networks or "headwater_default" in json.dumps(body)
