//! The container's header: any bytes, with their checksums right or not.

use crate::damage::kinds::repair_bytes;
use keystead::simulation::read_header;

const COPY: usize = 4096;

/// Input: whether checksums are made right, then the front of a file. What it has not is zero.
pub(super) fn run(input: &[u8]) {
    let [how, front @ ..] = input else { return };
    let mut front = front.to_vec();
    if how & 1 == 0 {
        front.resize(2 * COPY, 0);
        if how & 2 == 0 {
            // Both copies alike, as they are at rest.
            front.copy_within(..COPY, COPY);
        }
        repair_bytes(&mut front);
    }
    let Ok(header) = read_header(&front) else { return };
    assert_eq!(header.encoded.len(), COPY);
    assert!(
        header.cell_segments.is_sorted_by(|a, b| a < b),
        "the cell segments rise"
    );
    assert!(
        header.file_bytes >= 65_536 + (4 << 20),
        "no file is shorter than its fixed part"
    );
    let again = read_header(&header.encoded.repeat(2)).expect("what is written is read");
    assert_eq!(
        (again.sequence, again.store_id, again.page_blocks, again.mend),
        (header.sequence, header.store_id, header.page_blocks, None)
    );
    assert_eq!(
        (again.cell_segments, again.file_bytes),
        (header.cell_segments, header.file_bytes)
    );
}
