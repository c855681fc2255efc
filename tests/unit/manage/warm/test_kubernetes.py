"""Images of Kubernetes manifests."""

import json

from mirror.manage.warm.kubernetes import is_kubernetes, read_kubernetes
from mirror.manage.warm.listed import Listed
from mirror.manage.warm.yaml_nodes import documents

FILE = """\
apiVersion: batch/v1
kind: CronJob
spec:
  jobTemplate:
    spec:
      template:
        spec:
          initContainers:
            - {name: i, image: init:1}
          containers:
            - name: c
              image: main:1
          volumes:
            - name: data
              image: {reference: "quay.io/org/data:2"}
            - name: other
              emptyDir: {}
---
apiVersion: v1
kind: List
items:
  - apiVersion: apps/v1
    kind: Deployment
    spec: {template: {spec: {containers: [{image: listed:1}], ephemeralContainers: [{image: debug:1}]}}}
---
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
spec:
  image: quay.io/prometheus/prometheus:v3
  containers:
    - name: side
      image: side:1
---
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
images: []
---
just: data
"""


def listed(text: str) -> Listed:
    return read_kubernetes(documents(text, "k.yaml"), "k.yaml")


def test_manifests_have_the_images_of_all_pods() -> None:
    """Containers of each kind and image volumes, at any depth, in all documents."""
    assert sorted(each.text for each in listed(FILE).entries) == [
        "debug:1",
        "init:1",
        "listed:1",
        "main:1",
        "quay.io/org/data:2",
        "side:1",
    ]
    assert {each.text: each.place for each in listed(FILE).entries}["main:1"] == "k.yaml:12"


def test_manifest_parts_that_are_not_taken_are_named() -> None:
    """The image of an operator's own field is only told; a Kustomization is a file without its images."""
    notes = [(str(each), each.wrong) for each in listed(FILE).notes]
    assert [wrong for _, wrong in notes] == [False, True, True]
    assert notes[0][0].startswith(
        "k.yaml:29: image quay.io/prometheus/prometheus:v3 is not that of a container"
    )
    assert "kubectl kustomize" in notes[1][0]
    assert notes[2][0] == "k.yaml:38: not a Kubernetes manifest: it has no kind"


def test_container_without_a_text_is_named() -> None:
    text = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - image: [x]\n    - name: y\n"
    assert [str(each) for each in listed(text).notes] == ["k.yaml:5: the image is not a text"]


def test_manifests_may_be_json() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": "x:1"}]}}
    assert [each.text for each in listed(json.dumps(pod, indent=1)).entries] == ["x:1"]


def test_container_that_an_alias_repeats_is_listed_once() -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n  spec: &s {containers: [{image: x:1}]}\n"
        "- kind: Pod\n  spec: *s\n"
    )
    assert [each.text for each in listed(text).entries] == ["x:1"]


def test_manifests_are_told_by_their_kind() -> None:
    assert is_kubernetes(documents(FILE, "k"))
    assert not is_kubernetes(documents("kind: x\n", "k"))
