"""Secrets: what is written is read, and what goes wrong has its own exception."""

import io

import pytest

import keystead
from keystead import Code, Organization, VersionState


def test_what_was_put_is_read_with_what_stands_beside_it(acme: Organization) -> None:
    labels = {"owner": "team-db", "empty": ""}
    version = acme.put("prod/db/password", b"correct horse", labels=labels, content_type="text/plain")
    secret = acme.get("prod/db/password")
    assert (secret.value, secret.version, version) == (b"correct horse", 1, 1)
    assert secret.labels == labels
    assert secret.content_type == "text/plain"
    assert secret.created_at.tzinfo is not None
    assert "correct horse" not in repr(secret)


@pytest.mark.parametrize("value", [b"", b"\0", bytes(range(256)), b"x" * 65_537, bytearray(b"abc"), memoryview(b"abc")])
def test_any_bytes_come_back_as_they_were(acme: Organization, value: bytes) -> None:
    acme.put("a", value)
    assert acme.get("a").value == bytes(value)


def test_a_text_is_not_bytes(acme: Organization) -> None:
    with pytest.raises(TypeError):
        acme.put("a", "text")  # type: ignore[arg-type]


def test_a_put_that_expects_another_version_is_refused(acme: Organization) -> None:
    v1 = acme.put("a", b"1", expect=keystead.NEW)
    with pytest.raises(keystead.VersionMismatchError) as refused:
        acme.put("a", b"2", expect=keystead.NEW)
    assert refused.value.code is Code.VERSION_MISMATCH
    assert isinstance(refused.value, keystead.ConflictError)
    assert acme.put("a", b"2", expect=v1) == 2


def test_old_versions_stay_readable(acme: Organization) -> None:
    acme.put("a", b"1")
    acme.put("a", b"2")
    assert acme.get("a", 1).value == b"1"
    with pytest.raises(keystead.NotFoundError) as missing:
        acme.get("a", 3)
    assert missing.value.code is Code.VERSION_NOT_FOUND


def test_a_secret_that_is_not_there_is_a_lookup_error(acme: Organization) -> None:
    with pytest.raises(LookupError) as missing:
        acme.get("nothing/here")
    assert "nothing/here" in str(missing.value)
    assert isinstance(missing.value, keystead.NotFoundError)
    assert missing.value.code is Code.SECRET_NOT_FOUND
    assert not missing.value.retryable


def test_a_path_against_the_rules_is_a_value_error(acme: Organization) -> None:
    with pytest.raises(ValueError) as refused:
        acme.put("a//b", b"")
    assert isinstance(refused.value, keystead.CallerError)
    assert refused.value.code is Code.INVALID_PATH


def test_a_value_is_read_into_a_buffer_of_the_caller(acme: Organization) -> None:
    acme.put("a", b"correct horse")
    buffer = bytearray(64)
    assert acme.get_into("a", buffer) == 13
    assert buffer[:13] == b"correct horse"
    small = bytearray(b"????")
    with pytest.raises(keystead.CallerError) as refused:
        acme.get_into("a", small)
    assert refused.value.code is Code.BUFFER_TOO_SMALL
    assert small == b"????"


def test_a_batch_is_written_whole_or_not_at_all(acme: Organization) -> None:
    assert acme.put_all({"a": b"1", "b": b"2"}) == [1, 1]
    batch = keystead.Batch().put("a", b"3").put("c", b"4", expect=7)
    assert len(batch) == 2
    with pytest.raises(keystead.VersionMismatchError):
        acme.put_all(batch)
    assert acme.get("a").value == b"1"
    with pytest.raises(keystead.NotFoundError):
        acme.get("c")
    assert acme.put_all([("a", b"5"), ("a", b"6")]) == [2, 3]
    assert acme.put_all({}) == []


def test_lists_go_on_beyond_a_page(acme: Organization) -> None:
    paths = [f"many/{number:05}" for number in range(2500)]
    acme.put_all([(path, b"") for path in paths])
    acme.put("other", b"")
    assert [info.path for info in acme.list("many/")] == paths
    assert len(list(acme.list())) == 2501


def test_deleted_versions_come_back_and_destroyed_ones_do_not(acme: Organization) -> None:
    acme.put("a", b"1")
    acme.put("a", b"2")
    acme.delete("a", 2)
    with pytest.raises(keystead.NotFoundError) as deleted:
        acme.get("a")
    assert deleted.value.code is Code.VERSION_DELETED
    assert acme.info("a").deleted == 1
    acme.undelete("a", 2)
    assert acme.get("a").value == b"2"
    acme.destroy("a", 1)
    history = list(acme.history("a"))
    assert [version.state for version in history] == [VersionState.DESTROYED, VersionState.LIVE]
    assert history[0].state_at is not None and history[1].state_at is None
    assert history[1].size_bytes == 1


def test_retention_keeps_so_many_versions(acme: Organization) -> None:
    acme.put("a", b"1")
    acme.set_retention("a", 1)
    acme.put("a", b"2")
    assert acme.info("a").retention == 1
    with pytest.raises(keystead.NotFoundError):
        acme.get("a", 1)
    acme.set_retention("a", None)
    assert acme.info("a").retention is None
    with pytest.raises(ValueError):
        acme.set_retention("a", 0)


def test_a_large_value_goes_through_streams(acme: Organization) -> None:
    value = bytes(range(256)) * 4096 * 3
    with acme.writer("large", content_type="application/octet-stream") as writer:
        for start in range(0, len(value), 100_000):
            writer.write(value[start : start + 100_000])
    assert writer.version == 1
    with io.BufferedReader(acme.reader("large")) as reader:
        assert reader.read() == value
    with acme.reader("large", 1) as raw:
        assert raw.info.size_bytes == len(value)
        assert raw.read(10) == value[:10]


def test_a_writer_that_is_left_by_an_exception_leaves_nothing(acme: Organization) -> None:
    with pytest.raises(RuntimeError), acme.writer("large") as writer:
        writer.write(b"x" * 2_000_000)
        raise RuntimeError
    assert writer.version is None
    with pytest.raises(keystead.NotFoundError):
        acme.get("large")
    with pytest.raises(keystead.ClosedError):
        writer.write(b"more")
