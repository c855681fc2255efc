"""Images of Kubernetes manifests: of containers and of image volumes, at any depth; pure.

Pods are found wherever they are: in Deployments, CronJobs, Lists, or resources of an operator that have a pod
template. An `image` elsewhere, as operators have it, is named and not taken: nobody but the operator knows
whether it is a whole name.
"""

from collections.abc import Sequence

from ruamel.yaml.nodes import MappingNode, Node

from mirror.manage.warm.listed import Listed, ListEntry, Note
from mirror.manage.warm.yaml_nodes import fields, items, line_of, mappings, text_of

CONTAINERS = ("containers", "initContainers", "ephemeralContainers")


def is_kubernetes(roots: Sequence[Node]) -> bool:
    """Return whether any document of a file is a Kubernetes manifest."""
    return any({"apiVersion", "kind"} <= fields(each).keys() for each in roots)


def read_kubernetes(roots: Sequence[Node], name: str) -> Listed:
    """Return the images of all documents, each place once."""
    found = Listed()
    for root in roots:
        _add_document(found, root, name)
    return found


def _add_document(found: Listed, root: Node, name: str) -> None:
    keys = fields(root)
    if text_of(keys.get("kind")) == "Kustomization":
        reason = "a Kustomization names no images: kubectl kustomize DIR | registry-mirror warm --from -"
        found.notes.append(Note(f"{name}:{line_of(root)}", reason))
        return
    if not {"apiVersion", "kind"} <= keys.keys():
        found.notes.append(Note(f"{name}:{line_of(root)}", "not a Kubernetes manifest: it has no kind"))
        return
    taken: set[int] = set()
    nodes = list(mappings(root))
    for node in nodes:
        _add_pod(found, node, name, taken)
    for node in nodes:
        _note_other(found, node, name, taken)


def _add_pod(found: Listed, node: MappingNode, name: str, taken: set[int]) -> None:
    """Add the images of a mapping that may be the specification of a pod."""
    keys = fields(node)
    for key in CONTAINERS:
        containers = keys.get(key)
        if containers is None or id(containers) in taken:  # one list that many pods refer to
            continue
        taken.add(id(containers))
        for container in items(containers):
            _add(found, fields(container).get("image"), name, taken)
    for volume in items(keys.get("volumes")):
        _add(found, fields(fields(volume).get("image")).get("reference"), name, taken)


def _add(found: Listed, image: Node | None, name: str, taken: set[int]) -> None:
    if image is None or id(image) in taken:
        return
    taken.add(id(image))
    place, text = f"{name}:{line_of(image)}", text_of(image)
    if text:
        found.entries.append(ListEntry(text, place))
    else:
        found.notes.append(Note(place, "the image is not a text"))


def _note_other(found: Listed, node: MappingNode, name: str, taken: set[int]) -> None:
    image = fields(node).get("image")
    text = text_of(image)
    if image is not None and text and id(image) not in taken:
        taken.add(id(image))
        reason = f"image {text} is not that of a container, and not taken: name it if you need it"
        found.notes.append(Note(f"{name}:{line_of(image)}", reason, wrong=False))
