"""Creates a store, puts, brings a key by a dynamic plugin, waits for the re-wrap, reads, prints the epochs.

    python examples/bring_a_key.py /absolute/path/of/libkeystead_managed.so

The plugin here is the managed keyring once more, as the customer's; libkeystead_aws_kms.so is loaded in the same way.
"""

import sys
import tempfile
from pathlib import Path

import keystead


def main(plugin_path: str, directory: Path) -> None:
    managed = keystead.Backend.managed(directory / "app.keyring")
    customer = keystead.Backend.load(
        plugin_path,
        digest=keystead.plugin_digest(plugin_path),  # an application has the digest from whoever built the plugin
        name="customer-kms",
        settings={"keyring": str(directory / "customer.keyring"), "create": True},
    )
    with keystead.Store.create(directory / "app.keystead", backends=[managed, customer]) as store:
        acme = store.create_organization("acme").acting_as("alice@acme", "ticket 4711")
        v1 = acme.put("prod/db/password", b"correct horse", labels={"owner": "team-db"})
        acme.put("prod/db/password", b"battery staple", expect=v1)
        acme.put_all({f"prod/token/{number:03}": b"token %d" % number for number in range(500)})

        job = acme.keys.add("acme-cmk", "customer-kms")
        job.wait(timeout=60, progress=lambda status: print(f"{status.done} of {status.total} data keys moved"))

        assert acme.get("prod/db/password").value == b"battery staple"
        assert acme.get("prod/db/password", v1).value == b"correct horse"
        for epoch in acme.epochs():
            print(epoch)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(sys.argv[1], Path(scratch))
