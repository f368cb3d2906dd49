//! Every row codec: any bytes are refused or are a value, and a value encodes as itself.

use keystead::simulation::{journal_codec_holds, row_codec_holds};

/// Input: table, what is to be done about tags, length of the row's key, key, row.
pub(super) fn run(input: &[u8]) {
    let [table, tagging, key_len, rest @ ..] = input else {
        return;
    };
    let (row_key, row) = rest.split_at(usize::from(*key_len).min(rest.len()));
    // The format byte is nearly always the one that is known.
    let mut row = row.to_vec();
    if tagging & 2 == 0 && !row.is_empty() {
        row[0] = 1;
    }
    let holds = row_codec_holds(table % 16, row_key, &row, tagging & 1 == 0);
    assert_ne!(
        holds,
        Some(false),
        "a row of table {} is another one after its encoding",
        table % 16
    );
    let (_, holds) = journal_codec_holds(rest);
    assert!(holds, "a journal record is another one after its encoding");
}
