"""The sockets of the supervisor, by address."""

import pytest

from mirror.config.server import ServerSettings
from mirror.server.addresses import BoundAddresses, unused_addresses
from mirror.system.sockets import CLIENTS, OPERATIONS, bind_all

FIRST, SECOND = "127.0.0.1:0", "localhost:0"


def options(**values: object) -> ServerSettings:
    return ServerSettings.model_validate(values)


def test_addresses_for_clients_and_for_operators_are_told_apart() -> None:
    """A reload may move an address from one to the other, and unbinds what is in neither."""
    before, after = options(listen=(FIRST,), operations_listen=(SECOND,)), options(listen=(SECOND,))
    bound = BoundAddresses({})
    bound.bind(before)
    clients, operations = bound.for_clients(before), bound.for_operations(before)
    assert (clients, operations) == (bound.by_name()[FIRST], bound.by_name()[SECOND])
    assert (bound.for_clients(after), bound.for_operations(after)) == (operations, [])
    bound.unbind(after)
    assert list(bound.by_name()) == [SECOND]
    assert [each.fileno() for each in clients] == [-1]
    bound.close()


def test_addresses_of_the_pages_that_are_taken_stop_nothing() -> None:
    """Addresses of the pages are bound apart from all others, stay over a reload, and go with the option."""
    (taken,) = bind_all([FIRST])
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    bound, wanted = BoundAddresses({}), options(listen=(FIRST,))
    bound.bind(wanted)
    bound.bind_admin([address, SECOND])
    (pages,) = bound.for_admin([address, SECOND])
    assert bound.for_clients(wanted) == bound.by_name()[FIRST]
    taken.close()
    bound.bind_admin([address, SECOND])
    assert len(bound.for_admin([address, SECOND])) == 2
    bound.unbind(wanted, [SECOND])
    assert bound.for_admin([address, SECOND]) == [pages]
    bound.unbind(wanted)
    assert bound.for_admin([SECOND]) == []
    bound.close()


def test_addresses_of_a_service_manager_are_used_instead() -> None:
    """Sockets for clients stand in for `listen`, those for operators for `operations_listen`."""
    wanted = options(listen=(FIRST,), operations_listen=(SECOND,))
    passed = bind_all([FIRST])
    bound = BoundAddresses({CLIENTS: passed})
    bound.bind(wanted)
    assert bound.for_clients(wanted) == passed
    assert bound.for_operations(wanted) == bound.by_name()[SECOND]
    bound.unbind(options(listen=(FIRST,)))
    assert list(bound.by_name()) == [CLIENTS]
    bound.close()

    passed = bind_all([FIRST])
    bound = BoundAddresses({OPERATIONS: passed})
    bound.bind(wanted)
    assert bound.for_operations(wanted) == passed
    assert list(bound.by_name()) == [OPERATIONS, FIRST]
    bound.close(kept=passed)
    assert passed[0].fileno() != -1
    passed[0].close()


@pytest.mark.parametrize(
    ("bind", "listen", "unused"),
    [
        ("127.0.0.1:0", ["127.0.0.1:{port}"], []),
        ("127.0.0.1:0", ["localhost:{port}"], []),
        ("127.0.0.1:0", ["0.0.0.0:{port}"], ["0.0.0.0:{port}"]),
        ("[::]:0", [":{port}"], []),
        ("[::]:0", ["0.0.0.0:{port}"], []),
        ("0.0.0.0:0", ["0.0.0.0:{port}", ":1"], [":1"]),
    ],
)
def test_addresses_that_are_not_served_are_named(bind: str, listen: list[str], unused: list[str]) -> None:
    """An operator who changes `listen`, and not the socket unit, is told so."""
    (held,) = bind_all([bind])
    with held:
        port = held.getsockname()[1]
        asked = [each.format(port=port) for each in listen]
        assert unused_addresses(asked, [held]) == [each.format(port=port) for each in unused]
    assert unused_addresses([":1"], []) == []
