"""The Kubernetes API of the tests is a real one: it enforces RBAC and admission, makes pods, and collects garbage."""

from __future__ import annotations

import json

import pytest

from kube import Kubectl, KubectlError
from tools.cluster.api import ApiServer

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.com/web}]}
"""


async def test_a_deployment_makes_a_pod_that_goes_with_it(kubectl: Kubectl) -> None:
    await kubectl.apply(DEPLOYMENT)
    await kubectl("wait", "--for=create", "pod", "--selector=app=web", "--timeout=60s")
    pods = json.loads(await kubectl("get", "pods", "--output=json"))["items"]
    assert [pod["status"]["phase"] for pod in pods] == ["Pending"]
    await kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=60s")
    assert json.loads(await kubectl("get", "pods", "--output=json"))["items"] == []


async def test_a_service_account_may_do_what_its_role_says(api: ApiServer, kubectl: Kubectl) -> None:
    await kubectl("create", "serviceaccount", "reader")
    await kubectl("create", "role", "reader", "--verb=get,list", "--resource=secrets")
    await kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={kubectl.namespace}:reader")
    token = await kubectl("create", "token", "reader")
    reader = kubectl.as_user(api.kubeconfig(f"reader-{kubectl.namespace}", token.strip()))
    await reader("get", "secrets")
    with pytest.raises(KubectlError, match="secrets is forbidden"):
        await reader("create", "secret", "generic", "more")


async def test_an_error_tells_what_kubectl_said(kubectl: Kubectl) -> None:
    with pytest.raises(KubectlError, match=r'kubectl get pod none: exit 1: .*pods "none" not found'):
        await kubectl("get", "pod", "none")
