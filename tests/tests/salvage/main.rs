//! Salvage: what is whole in a damaged file is in the new store, what is not is named, and nothing is wrong.
//!
//! | file | claims |
//! | --- | --- |
//! | `every_whole_value.rs` | whatever blocks are destroyed, every whole value is recovered and every other one named |
//! | `what_leads_to_it.rs` | so also without the pages that lead to others, redb's header or the store's own |
//! | `journal.rs` | the journal's records are salvaged, and only those that are news |
//! | `keys_and_epochs.rs` | lost keys, epochs and audit records leave their names, and a store that goes on |
//!
//! The others are what they share: `world.rs` a store with a model of it, `oracle.rs` what a value needs, `judged.rs` the judgement of a
//! salvage by both, `small.rs` a store for what needs no more.

mod every_whole_value;
mod journal;
mod judged;
mod keys_and_epochs;
mod oracle;
mod small;
mod what_leads_to_it;
mod world;
