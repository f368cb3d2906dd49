//! Makes every checksum and tag of an image right again, whatever was changed in it: so that tests and fuzzers get past them, to
//! what only somebody who knows the format could write.

use super::geometry::{
    BLOCK_BYTES, CELL_BYTES, FIRST_CELLS_OFFSET, HEADER_BYTES, JOURNAL_BYTES, JOURNAL_OFFSET, Layout,
    SECTOR_BYTES, array,
};
use super::header::Header;
use super::journal;
use super::tags::Tags;

const SECTOR: usize = SECTOR_BYTES as usize;
const SEAL: usize = 32;

/// Repairs an image of a store file in place: the checksums of both header copies, the seal over redb's header, the tags of
/// blocks, shred cells and journal records. What was erased or never written (all zero) stays so. `redb_header` may mend what
/// redb checks for itself, before the seal is made; it gets the bytes that redb uses, 480 at most.
///
/// The keys of the tags are derived from the store id, which stands in the header for all to see. An image whose header
/// cannot be read even with a right checksum is left at that.
pub fn repair_image(image: &mut [u8], redb_header: impl FnOnce(&mut [u8])) {
    let copy = HEADER_BYTES as usize;
    for index in [0, 1] {
        if let Some(bytes) = image.get_mut(index * copy..(index + 1) * copy) {
            Header::repair(bytes);
        }
    }
    let header = [0, 1].into_iter().find_map(|index| {
        let bytes = image.get(index * copy..(index + 1) * copy)?;
        Header::decode(&array(bytes)).ok()
    });
    let Some(Header { store_id, layout, .. }) = header else {
        return;
    };
    let tags = Tags::new(&store_id);
    repair_cells(&tags, &layout, image);
    if let Some(region) = range(image, JOURNAL_OFFSET, JOURNAL_BYTES) {
        journal::repair(&tags, region);
    }
    if layout.page_blocks > 0
        && let Some(sector) = range(image, layout.block_offset(0), SECTOR_BYTES)
        && sector.iter().any(|byte| *byte != 0)
    {
        let (sealed, seal) = sector.split_at_mut(SECTOR - SEAL);
        redb_header(sealed);
        seal.copy_from_slice(&tags.redb_header(sealed));
    }
    repair_blocks(&tags, &layout, image);
}

fn repair_blocks(tags: &Tags, layout: &Layout, image: &mut [u8]) {
    for block in 1..layout.page_blocks {
        let Some(bytes) = range(image, layout.block_offset(block), BLOCK_BYTES) else {
            return;
        };
        let tag = tags.block(block, &array(bytes));
        let stored = range(image, layout.tag_offset(block), tag.len() as u64);
        if let Some(stored) = stored.filter(|stored| stored.iter().any(|byte| *byte != 0)) {
            stored.copy_from_slice(&tag);
        }
    }
}

fn repair_cells(tags: &Tags, layout: &Layout, image: &mut [u8]) {
    for cell in 0..layout.cell_capacity() {
        let offset = layout.cell_offset(cell).unwrap_or(FIRST_CELLS_OFFSET);
        let Some(bytes) = range(image, offset, CELL_BYTES) else {
            return;
        };
        if bytes.iter().any(|byte| *byte != 0) {
            let tag = tags.cell(cell, &bytes[..32]);
            bytes[32..40].fill(0);
            bytes[40..].copy_from_slice(&tag);
        }
    }
}

fn range(image: &mut [u8], offset: u64, len: u64) -> Option<&mut [u8]> {
    let offset = usize::try_from(offset).ok()?;
    image.get_mut(offset..offset.checked_add(usize::try_from(len).ok()?)?)
}
