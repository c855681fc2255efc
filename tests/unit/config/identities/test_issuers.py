"""Options of `[[issuer]]` tables."""

from pathlib import Path

import pytest

from mirror.config.loader import ConfigError, load

TABLE = '[[issuer]]\nname = "gitlab"\nissuer = "https://gitlab.test/"\naudience = ["mirror"]\n'


def write(folder: Path, text: str) -> Path:
    file = folder / "mirror.toml"
    file.write_text(text)
    return file


def test_issuer_tables_are_read(tmp_path: Path) -> None:
    """The issuer's URL keeps its spelling: tokens have the same one."""
    (tmp_path / "keys").write_text('{"keys": []}')
    text = f'{TABLE}claims = ["ref"]\njwks_file = "{tmp_path}/keys"\n'
    (found,) = load(write(tmp_path, text), {}, {}).config.issuers
    assert (found.name, found.issuer, found.audience) == ("gitlab", "https://gitlab.test/", ("mirror",))
    assert (found.claims, found.jwks_file, found.jwks_url) == (("ref",), tmp_path / "keys", None)


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost", "[::1]:8080"])
def test_issuer_on_this_machine_needs_no_tls(tmp_path: Path, host: str) -> None:
    load(write(tmp_path, TABLE.replace("https://gitlab.test/", f"http://{host}")), {}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[issuer]]\nname = "x"\n', "issuer.x.issuer: is missing"),
        (TABLE.replace('["mirror"]', "[]"), "audience: is empty"),
        (TABLE.replace('["mirror"]', '[""]'), "audience: is empty"),
        (TABLE.replace('"gitlab"', '"Git Lab"'), "no name of an issuer"),
        (TABLE.replace('"gitlab"', '"a:b"'), "no name of an issuer"),
        (TABLE.replace("https://gitlab.test/", "gitlab.test"), "is not a URL"),
        (TABLE.replace("https://gitlab.test/", "https://gitlab.test:x/"), "is not a URL"),
        (TABLE.replace("https://gitlab.test/", "https://a b/"), "is not a URL"),
        (TABLE.replace("https://gitlab.test/", "http://gitlab.test"), "needs https"),
        (TABLE.replace("https://gitlab.test/", "https://me:pw@gitlab.test"), "has a user"),
        (TABLE.replace("https://gitlab.test/", "https://gitlab.test?a=b"), "has a query"),
        (f'{TABLE}jwks_url = "http://gitlab.test/keys"\n', "needs https"),
        (f'{TABLE}jwks_file = "FOLDER/none"\n', "cannot be read"),
        (f'{TABLE}jwks_file = "FOLDER/mirror.toml"\n', "no JSON Web Key Set"),
        (f'{TABLE}jwks_file = "FOLDER/keys"\njwks_url = "https://gitlab.test/keys"\n', "keep one"),
        (f"{TABLE}{TABLE}", "is named twice"),
        (f"{TABLE}algorithms = []\n", "algorithms"),
    ],
)
def test_issuer_tables_that_are_wrong_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys").write_text('{"keys": []}')
    with pytest.raises(ConfigError, match=message) as refused:
        load(write(tmp_path, text.replace("FOLDER", str(tmp_path))), {}, {})
    assert "pw" not in str(refused.value)
