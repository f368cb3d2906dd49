"""What is done to files: a damaged store is salvaged, a keyring is looked after."""

from pathlib import Path

import pytest

import keystead
from keystead import Code, Keyring, LossKind, SalvageStep, Store


def test_what_is_whole_in_a_damaged_file_is_salvaged_and_what_is_lost_is_named(
    tmp_path: Path, managed: keystead.Backend
) -> None:
    path, new = tmp_path / "app.keystead", tmp_path / "new.keystead"
    with Store.create(path, backends=[managed]) as store:
        identity = store.id
        acme = store.create_organization("acme")
        acme.put("small", b"value")
        acme.put("large", bytes(3_000_000))
    told: list[SalvageStep] = []
    whole = keystead.salvage(path, new, backends=[managed], progress=told.append)
    assert whole.is_complete and (whole.store_id, whole.secrets, whole.opened) == (identity, 2, 2)
    assert told and all(step.phase and (step.total is None or step.done <= step.total) for step in told)
    with pytest.raises(keystead.ConflictError):
        keystead.salvage(path, new, backends=[managed])
    new.unlink()

    with path.open("r+b") as file:
        file.seek(5 << 20)  # behind the journal, in the middle of the large value
        file.write(bytes(1 << 20))
    report = keystead.salvage(path, new, backends=[managed])
    lost = next(loss for loss in report.lost if loss.path == "large")
    assert not report.is_complete
    assert (lost.kind, lost.organization, lost.version) == (LossKind.VERSION, "acme", 1)
    with Store.open(new, backends=[managed]) as store:
        acme = store.organization("acme")
        assert acme.get("small").value == b"value"
        with pytest.raises(keystead.IntegrityError) as gone:
            acme.get("large")
        assert gone.value.code is Code.VERSION_LOST

    def refuse(step: SalvageStep) -> None:
        raise KeyError(step)

    with pytest.raises(KeyError):
        keystead.salvage(path, tmp_path / "other", progress=refuse)
    with pytest.raises(ValueError, match="16 bytes"):
        keystead.salvage(path, tmp_path / "another", store_id=b"short")


def test_a_keyring_is_made_rotated_disabled_and_resealed(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "sealed.keyring", passphrase="correct horse")
    with pytest.raises(keystead.ConfigError):
        Keyring.create(tmp_path / "sealed.keyring")
    with pytest.raises(keystead.RevokedError) as wrong:
        Keyring.open(tmp_path / "sealed.keyring", passphrase=b"another horse")
    assert wrong.value.code is Code.KMS_UNAUTHENTICATED
    with Store.create(tmp_path / "app.keystead", backends=[keyring.backend()]) as store:
        acme = store.create_organization("acme")
        acme.put("a", b"1")
        assert keyring.rotate() == 2
        status = keyring.status()
        assert (status.enabled, status.sealed, len(status.id)) == (True, True, 32)
        assert [version.number for version in status.versions] == [1, 2]
        keyring.disable()
        store.forget_epoch_keys()
        with pytest.raises(keystead.RevokedError):
            acme.get("a")
        keyring.enable()
        store.forget_epoch_keys()  # and that it was refused
        assert acme.get("a").value == b"1"
        resealed = keyring.reseal(passphrase=None)
        assert not resealed.status().sealed
        with pytest.raises(keystead.ConfigError):
            keyring.rotate()
