"""The options of the pages."""

import pytest

from mirror.config.pages.admin import AdminSettings


@pytest.mark.parametrize(
    ("given", "listen"),
    [
        ([], ()),
        (["5002"], ("127.0.0.1:5002",)),
        ([":5002"], ("127.0.0.1:5002",)),
        (["[::1]:5002", "10.0.0.1:80"], ("[::1]:5002", "10.0.0.1:80")),
    ],
)
def test_admin_port_alone_is_that_of_loopback(given: list[str], listen: tuple[str, ...]) -> None:
    """Every address of the machine has to be asked for: 0.0.0.0:5002."""
    assert AdminSettings.model_validate({"listen": given}).listen == listen


def test_admin_addresses_and_hosts_are_checked() -> None:
    """Names have one spelling."""
    assert AdminSettings.model_validate({"hosts": ["Mirror.LAN"]}).hosts == ("mirror.lan",)
    with pytest.raises(ValueError, match="not HOST:PORT"):
        AdminSettings.model_validate({"listen": ["mirror"]})
    with pytest.raises(ValueError, match="is no host"):
        AdminSettings.model_validate({"hosts": ["http://mirror.lan/"]})
