//! The committed header is what cbindgen writes from the sources.

use std::path::Path;

/// Set to write the header instead of comparing it.
const BLESS: &str = "KEYSTEAD_BLESS";

#[test]
fn the_committed_header_is_what_cbindgen_writes_from_the_sources() {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(crate_directory.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::generate_with_config(crate_directory, config).unwrap();
    let mut written = Vec::new();
    bindings.write(&mut written);
    let written = String::from_utf8(written).unwrap();
    let committed = crate_directory.join("include/keystead.h");
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&committed, &written).unwrap();
        return;
    }
    assert!(
        std::fs::read_to_string(&committed).unwrap_or_default() == written,
        "{} has drifted from the sources: run `{BLESS}=1 cargo test --package keystead-ffi --test header`",
        committed.display()
    );
}
