"""Lists of referrers as text."""

import json
from typing import Any

import pytest

from mirror.oci import referrers
from mirror.oci.digest import Digest
from mirror.oci.manifest import OCI_INDEX, OCI_MANIFEST, ManifestInvalid
from mirror.oci.referrers import array_of, descriptors_in, index_of, texts_by_type, texts_of_index, type_of


def descriptor(text: str, **more: object) -> dict[str, Any]:
    return {"mediaType": "x", "digest": str(Digest.of(text.encode())), "size": 1, **more}


ENTRIES = [
    descriptor("a", artifactType="t/a"),
    descriptor("é", x={"y": [1.5]}),
    descriptor("c", artifactType="t/a"),
]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("entries", [[], ENTRIES[:1], ENTRIES])
def test_referrers_of_an_index_read_back(entries: list[dict[str, Any]], indent: int | None) -> None:
    """An index is a list, and a list is an index, whatever the white space and the order of fields."""
    document = {"annotations": {"a": "b"}, "manifests": entries, "mediaType": OCI_INDEX, "schemaVersion": 2}
    array = array_of(texts_of_index(json.dumps(document, indent=indent).encode()))
    assert json.loads(array) == entries == list(descriptors_in(array))
    assert json.loads(index_of(array)) == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    assert texts_of_index(index_of(array)) == texts_of_index(json.dumps(document, indent=indent).encode())


def test_referrers_by_type_keep_their_places() -> None:
    """Descriptors without a type are under the empty one."""
    found = texts_by_type(json.dumps(ENTRIES))
    assert {kind: [place for place, _ in each] for kind, each in found.items()} == {"t/a": [0, 2], "": [1]}
    assert json.loads(found["t/a"][1][1]) == ENTRIES[2]


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "[]", '{"manifests":{}}', '{"manifests":[1]}', '{"manifests":[{}]}'),
        json.dumps({"manifests": [], "mediaType": OCI_MANIFEST}),
        *(
            '{"manifests":[',
            '{"manifests":[],}',
            '{"manifests":[]} x',
            '{"manifests":[,]}',
            '{"a" 1}',
            "{1:2}",
            "",
        ),
        '{"manifests":[{} {}]}',
        '{"manifests":[' + "[" * 30_000,
        '{"manifests":[],"x":' + "[" * 5_000 + "]" * 5_000 + "}",
        '{"manifests":[],"x":"' + "y" * 70_000 + '"}',
    ],
)
def test_referrers_of_another_document_are_refused(text: str) -> None:
    """A document that is no index, or that has a very long value, raises ManifestInvalid and nothing else."""
    with pytest.raises(ManifestInvalid):
        texts_of_index(text.encode())


def test_referrers_that_are_not_text_are_refused() -> None:
    """Bytes that are not UTF-8 are no index."""
    with pytest.raises(ManifestInvalid):
        texts_of_index(b'{"manifests":[]\xff}')


def test_referrers_are_parsed_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part of a long list that is parsed at a time is long: other threads go on between them."""
    lengths = []
    decode = referrers._DECODER.raw_decode

    def counted(text: str) -> tuple[Any, int]:
        lengths.append(len(text))
        return decode(text)

    monkeypatch.setattr(referrers._DECODER, "raw_decode", counted)
    texts = [json.dumps(descriptor(str(each))) for each in range(20_000)]
    assert texts_of_index(index_of(array_of(texts))) == texts
    assert max(lengths) <= 2048


@pytest.mark.parametrize("text", ['{"artifactType":1}', "{}", "[]", "x", "", "[" * 10_000])
def test_type_of_a_descriptor_is_its_own_or_none(text: str) -> None:
    assert type_of(json.dumps(ENTRIES[0])) == "t/a"
    assert type_of(text) == ""
