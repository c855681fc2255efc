"""Clients: whom a share counts for."""

import asyncio

import pytest

from mirror.util.fairness.client import NO_CLIENT, current_client, set_client


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2"),
        ("2001:db8:1:2::9", "2001:db8:1:2"),
        ("2001:db8::9", "2001:db8:0:0"),
        ("fe80::1%eth0", "fe80:0:0:0"),
        ("::1", "0:0:0:0"),
        ("", NO_CLIENT),
        (None, NO_CLIENT),
    ],
)
async def test_client_is_an_address_or_a_network(address: str | None, client: str) -> None:
    """A host has one IPv4 address, and as many addresses in its /64 as it wants."""
    set_client(address)
    assert current_client() == client


async def test_client_with_names_is_one_client_at_every_address() -> None:
    """A client that has shown its names has one share at all addresses; other names have another share."""
    seen = set()
    for address, names in (
        ("192.0.2.7", ("group:ci", "user:alice")),
        ("2001:db8::9", ("group:ci", "user:alice")),
        ("192.0.2.7", ("group:ci", "user:bob")),
        ("192.0.2.7", ()),
    ):
        set_client(address, names)
        seen.add(current_client())
    assert seen == {"group:ci user:alice", "group:ci user:bob", "192.0.2.7"}


async def test_client_is_inherited_by_tasks() -> None:
    """Work that a request starts counts for the request's client."""

    async def ask() -> str:
        return current_client()

    set_client("192.0.2.7")
    task = asyncio.create_task(ask())
    set_client("192.0.2.8")
    assert await task == "192.0.2.7"
