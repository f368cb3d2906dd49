"""What the tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import keystead


@pytest.fixture(scope="session")
def plugin() -> str:
    """A dynamic plugin: the managed keyring once more."""
    path = os.environ.get("KEYSTEAD_PLUGIN", "")
    assert path, "set KEYSTEAD_PLUGIN to libkeystead_managed.so, which `cargo build -p keystead-managed-plugin` makes"
    return path


@pytest.fixture
def managed(tmp_path: Path) -> keystead.Backend:
    return keystead.Backend.managed(tmp_path / "app.keyring")


@pytest.fixture
def store(tmp_path: Path, managed: keystead.Backend) -> Iterator[keystead.Store]:
    with keystead.Store.create(tmp_path / "app.keystead", backends=[managed]) as store:
        yield store


@pytest.fixture
def acme(store: keystead.Store) -> keystead.Organization:
    return store.create_organization("acme")
