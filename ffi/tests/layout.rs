//! Every struct of the header has the same layout on both sides: `abi/layout.h` says it, this compares it with Rust's, and
//! `tests/c/layout.c` does not compile where a C compiler's is another one.

use keystead_ffi::{
    audit, backend, epochs, history, identity, keyring, keys, log, rewrap, salvage, second, secret, store,
    text, verify,
};
use std::collections::BTreeSet;
use std::mem::{offset_of, size_of};
use std::path::Path;
use syn::Item;

/// Set to write the list instead of comparing it.
const BLESS: &str = "KEYSTEAD_BLESS";

const TOP: &str = "\
/* Sizes and offsets of the header's structs where pointers have 64 bits: written by `cargo test --package keystead-ffi --test layout`
 * with KEYSTEAD_BLESS=1. What stands here is never changed and never taken away: a struct that grows gets a new size, and its
 * new fields their lines. */
";

/// Lists a struct; that no field is left out, and that there is no padding: each field's end is the next one's begin, and the
/// last one's end is the struct's.
macro_rules! layout {
    ($list:ident, $module:ident::$name:ident: $($field:ident),+) => {
        type Struct = $module::$name;
        let mut end = 0;
        let mut fields = String::new();
        $(
            let at = offset_of!(Struct, $field);
            assert_eq!(at, end, "a gap before {}.{}", stringify!($name), stringify!($field));
            end = at + field_size(|of: &Struct| &raw const of.$field);
            fields += &format!("OFFSET({}, {}, {at})\n", stringify!($name), stringify!($field));
        )+
        assert_eq!(end, size_of::<Struct>(), "{} has fields that are not listed", stringify!($name));
        $list.push((stringify!($name), format!("SIZE({}, {end})\n{fields}", stringify!($name))));
    };
}

fn field_size<S, F>(_field: impl Fn(&S) -> *const F) -> usize {
    size_of::<F>()
}

fn layouts() -> Vec<(&'static str, String)> {
    let mut list = Vec::new();
    {
        layout!(list, audit::keystead_audit_record: struct_size, reserved, sequence, at_ms, event, details_json, actor, reason, hash);
    }
    {
        layout!(list, audit::keystead_audit_head: struct_size, reserved, sequence, hash);
    }
    {
        layout!(list, backend::keystead_plugin_options: struct_size, dangerously_without_digest, digests, digests_len, size_max_bytes, name, name_len, settings_json, settings_json_len, at_first_use, reserved);
    }
    {
        layout!(list, epochs::keystead_wrapped_by: key, kms_key_id);
    }
    {
        layout!(list, epochs::keystead_epoch: struct_size, number, state, cause, data_keys, opened_at_ms, retired_at_ms, key, kms_key_id, actor, reason, hash, wrapped_by, wrapped_by_len);
    }
    {
        layout!(list, history::keystead_secret_info: struct_size, latest, deleted, retention, path, created_at_ms, updated_at_ms);
    }
    {
        layout!(list, history::keystead_version_info: struct_size, version, state, reserved, state_at_ms, created_at_ms, size_bytes, content_type, labels, labels_len);
    }
    {
        layout!(list, identity::keystead_identity_request: struct_size, reserved, audience, organization, key);
    }
    {
        layout!(list, keyring::keystead_keyring_options: struct_size, kdf_memory_kib, kdf_passes, kdf_lanes, passphrase, passphrase_len);
    }
    {
        layout!(list, keyring::keystead_keyring_version: number, reserved, created_at_ms);
    }
    {
        layout!(list, keyring::keystead_keyring_info: struct_size, enabled, sealed, reserved, id, versions, versions_len);
    }
    {
        layout!(list, keys::keystead_key_info: struct_size, state, is_default, reserved, name, backend, config_json, created_at_ms);
    }
    {
        layout!(list, log::keystead_log_record: struct_size, level, target, message, fields_json);
    }
    {
        layout!(list, rewrap::keystead_rewrap_source: epoch, target, handed_over, retired);
    }
    {
        layout!(list, rewrap::keystead_rewrap_progress: struct_size, phase, state, reserved, job, total, done, failed, remaining, batches, rate, blocked, sources, sources_len);
    }
    {
        layout!(list, salvage::keystead_salvage_options: struct_size, without_opening, keep_undecided, reserved, store_id);
    }
    {
        layout!(list, salvage::keystead_salvage_step: struct_size, reserved, phase, done, total);
    }
    {
        layout!(list, salvage::keystead_salvage_counts: struct_size, reserved, store_id, organizations, secrets, versions, opened, tagged, unproven, destroyed, audit_kept, audit_carried, journal_records_lost, lost, unopened);
    }
    {
        layout!(list, salvage::keystead_loss: struct_size, kind, organization_id, version, organization, path, secret_id, what);
    }
    {
        layout!(list, second::keystead_second_key_status: struct_size, either_opens, key, wrapped, missing, blocked, standing_in, standing_in_because, standing_in_since_ms);
    }
    {
        layout!(list, secret::keystead_put_options: struct_size, expect, expect_version, reserved, content_type, content_type_len, labels, labels_len);
    }
    {
        layout!(list, secret::keystead_secret_view: struct_size, version, data, len, created_at_ms, content_type, labels, labels_len);
    }
    {
        layout!(list, store::keystead_store_options: struct_size, without_background_rewrap, backends, backends_len, cache_bytes, key_lifetime_ms, kms_timeout_ms, epoch_keys_max, wraps_per_epoch_max, kms_attempts_max, rewrap_batch, identity_token, identity_context, checkpoint_json, checkpoint_json_len);
    }
    {
        layout!(list, store::keystead_organization_info: struct_size, id, name, created_at_ms, secrets);
    }
    {
        layout!(list, text::keystead_text: data, len);
    }
    {
        layout!(list, text::keystead_label: name, value);
    }
    {
        layout!(list, verify::keystead_verify_counts: struct_size, reserved, organizations, secrets, versions, values_opened, epochs, audit_records, problems, unopened, blocks, stale_blocks, chunks, wraps, complete, reserved_more);
    }
    {
        layout!(list, verify::keystead_problem: struct_size, version, organization, path, what);
    }
    list
}

/// The names of all structs whose fields C sees.
fn structs_of_the_sources() -> BTreeSet<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(sources).unwrap() {
        let file = syn::parse_file(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        for item in file.items {
            if let Item::Struct(item) = item
                && item
                    .attrs
                    .iter()
                    .any(|attribute| attribute.path().is_ident("repr"))
                && matches!(item.vis, syn::Visibility::Public(_))
            {
                names.insert(item.ident.to_string());
            }
        }
    }
    names
}

#[test]
fn every_struct_of_the_header_has_the_committed_layout() {
    let layouts = layouts();
    let listed = layouts.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(structs_of_the_sources(), listed);
    let found = layouts
        .into_iter()
        .fold(TOP.to_owned(), |text, (_, lines)| text + "\n" + &lines);
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi/layout.h");
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&committed, &found).unwrap();
        return;
    }
    assert!(
        std::fs::read_to_string(&committed).unwrap_or_default() == found,
        "{} is not the layout of the sources; if a struct has grown at its end: {BLESS}=1 cargo test --package keystead-ffi --test layout",
        committed.display()
    );
}
