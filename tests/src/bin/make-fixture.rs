//! `make-fixture DIRECTORY` writes the store file of this format version that a test opens for ever after
//! (`tests/fixtures/format-N`). Run once for each format version; what it wrote is never written again.

use keystead::{Backend, Batch, PutOptions, Store, Version};
use keystead_managed::ManagedBackend;
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let directory = PathBuf::from(
        std::env::args()
            .nth(1)
            .ok_or_else(|| anyhow::anyhow!("which directory?"))?,
    );
    std::fs::create_dir_all(&directory)?;
    let store = Store::options()
        .backend(Backend::new(ManagedBackend::keyring(directory.join("managed.keyring"))).named("managed"))
        .backend(
            Backend::new(ManagedBackend::keyring(directory.join("customer.keyring"))).named("customer-kms"),
        )
        .rewrap_batch(7)
        .create(directory.join("store.keystead"))?;

    let plain = store.create_organization("plain")?;
    plain.put("a", "under the managed key")?;
    let acme = store
        .create_organization("acme")?
        .acting_as("alice@acme", "ticket 4711")?;
    let mut batch = Batch::new();
    for n in 0..20 {
        batch = batch.put(&format!("many/{n}"), format!("value {n}"))?;
    }
    acme.commit(batch)?;
    acme.put_with(
        "labelled",
        "with labels",
        PutOptions::new()
            .label("owner", "team-db")
            .content_type("text/plain"),
    )?;
    acme.put("empty", "")?;
    acme.put("chunked", vec![7; 100_000])?;
    for value in ["one", "two", "three", "four"] {
        acme.put("versions", value)?;
    }
    let version = |number| Version::new(number).ok_or_else(|| anyhow::anyhow!("versions begin at 1"));
    acme.delete("versions", version(2)?)?;
    acme.destroy("versions", version(3)?)?;
    acme.set_retention("versions", Some(10))?;
    acme.keys()
        .add("acme-cmk", "customer-kms", serde_json::json!({}))?
        .wait()?;
    acme.keys().rotate("acme-cmk")?.wait()?;
    acme.put("after", "under the third epoch")?;
    store.close()?;
    Ok(())
}
