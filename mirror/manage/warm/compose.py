"""Images of a Compose file: `image` of each service, with variables; pure."""

from collections.abc import Mapping, Sequence

from ruamel.yaml.nodes import Node

from mirror.manage.warm.interpolation import Unset, interpolate
from mirror.manage.warm.listed import Listed, ListEntry, Note
from mirror.manage.warm.yaml_nodes import fields, line_of, text_of


def is_compose(roots: Sequence[Node]) -> bool:
    """Return whether the documents of a file are a Compose file."""
    return len(roots) == 1 and "services" in fields(roots[0]) and "kind" not in fields(roots[0])


def read_compose(root: Node, name: str, values: Mapping[str, str]) -> Listed:
    """Return the images of all services, whatever their profiles. `values`: of the variables."""
    found, keys = Listed(), fields(root)
    if "include" in keys:
        reason = "include is not followed: name those files too, with --from"
        found.notes.append(Note(f"{name}:{line_of(keys['include'])}", reason))
    for service, node in fields(keys["services"]).items():
        _add_service(found, service, node, name, values)
    return found


def _add_service(found: Listed, service: str, node: Node, name: str, values: Mapping[str, str]) -> None:
    keys, place = fields(node), f"{name}:{line_of(node)}"
    image = text_of(keys.get("image"))
    if "build" in keys:
        found.notes.append(Note(place, f"{service} is built, not pulled: its image is left out", wrong=False))
    elif image is not None:
        place = f"{name}:{line_of(keys['image'])}"
        try:
            found.entries.append(ListEntry(interpolate(image, values), place))
        except Unset as error:
            found.notes.append(Note(place, f"image {image}: {error}"))
    elif "extends" in keys:
        reason = f"{service} has its image by extends, which is not followed: name that file too, with --from"
        found.notes.append(Note(place, reason))
    else:
        found.notes.append(Note(place, f"{service} has neither image nor build"))
