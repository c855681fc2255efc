"""The commands by name, with the module that each one is in: a module is imported when its command runs."""

import importlib
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class CommandPlace(TyperCommand):
    """A command that is not imported: what the list of commands shows, and the module that has it."""

    def __init__(self, name: str, module: str, line: str) -> None:
        """`line`: the first sentence of the command's help. The module's `add_to` adds the command."""
        super().__init__(name, help=line)
        self.module = module

    def command(self) -> Any:
        """Import the command, or the group of commands."""
        program = typer.Typer(rich_markup_mode=None)
        importlib.import_module(self.module).add_to(program)
        return typer.main.get_group(program).commands[self.name or ""]


# In the order of the help.
PLACES: Mapping[str, CommandPlace] = {
    name: CommandPlace(name, f"mirror.cli.{module}", line)
    for name, module, line in (
        ("verify", "verify", "Check every cached file against its digest."),
        ("setup", "setup", "Show how a client is pointed at the mirror, or do it."),
        ("doctor", "doctor", "Find what keeps the mirror from working, and what mends it."),
        ("ls", "cache", "List images: tags, and what was pulled by digest."),
        ("rm", "cache", "Remove images, and the blobs that only they need."),
        ("du", "cache", "Show how much room each repository and each upstream takes."),
        ("gc", "cache", "Remove garbage, and whatever exceeds the quota."),
        (
            "have",
            "carry.export",
            "Write the digests of all cached blobs, for `registry-mirror export --lacking`.",
        ),
        ("export", "carry.export", "Write images to a file, to carry them to a mirror without a network."),
        ("import", "carry.imports", "Keep the images of a file that was carried here."),
        ("copy", "hosted.copying", "Copy images into a hosted registry, or into any other registry."),
        ("push", "hosted.copying", "Copy images into a hosted registry, or into any other registry."),
        ("retag", "hosted.copying", "Give an image of a hosted registry a further name; no bytes move."),
        ("pin", "pins", "Keep images, whatever the quota and their age."),
        ("unpin", "pins", "Remove a pin."),
        ("pins", "pins", "List the pins, and how much of each is here."),
        ("warm", "warm", "Fetch images ahead, so that clients find them here, without the upstream too."),
        ("config", "config.settings", "Check and show the configuration."),
        ("access", "config.access", "Try the access rules."),
        ("token", "access.tokens", "Create, list and revoke tokens, by which clients identify themselves."),
        ("shared", "shared.tier", "Examine the tier that several mirrors share, verify and clean it."),
        ("bundle", "carry.bundles", "Look at files of images, which `export` writes."),
        ("hosted", "hosted.retention", "Look after hosted registries."),
        (
            "top",
            "operate.top",
            "Show what a running mirror does: requests, downloads, upstreams, the disk, troubles.",
        ),
        (
            "backup",
            "operate.backup",
            "Write what cannot be fetched again to one file, while the mirror runs.",
        ),
        ("restore", "operate.backup", "Make a cache folder from a backup."),
        (
            "healthcheck",
            "operate.healthcheck",
            "Say whether the mirror on this machine is alive: exit status 0, else 1.",
        ),
    )
}


class CommandGroup(TyperGroup):
    """The program: commands that are imported, then those of PLACES."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for place in PLACES.values():
            self.add_command(place)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the imported command, and the rest of the arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.command() if isinstance(command, CommandPlace) else command, rest
