//! Every block of the file against its tag, from the disk: what no reader would meet today is looked at as well.

use super::geometry::{BLOCK_BYTES, BLOCKS_PER_SEGMENT, TAG_BYTES};
use super::{Container, ContainerError};

const BLOCK: usize = BLOCK_BYTES as usize;
const SCANNING: &str = "reading every block";
/// How often a block that does not match is read again: a writer may be between the block and its tag.
const LOOKS: usize = 3;

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Blocks that were ever written.
    pub(crate) blocks: u64,
    /// Those that do not match their tags. A crash leaves such ones where nothing refers to them.
    pub(crate) unmatched: Vec<u64>,
}

/// The most blocks that are listed.
const UNMATCHED_MAX: usize = 100_000;

impl Container {
    /// Reads every block of redb's file. Calls `progress` with blocks done and blocks in all, once for each segment. Blocks that do
    /// not match are looked at again when all are read, and once more after each `pause`.
    pub(crate) fn scan_blocks(
        &self,
        mut progress: impl FnMut(u64, u64),
        pause: impl Fn(),
    ) -> Result<Scan, ContainerError> {
        let layout = self.inner.layout();
        let pages = self.pages();
        let total = layout.page_blocks;
        let mut found = Scan::default();
        let mut segment = vec![0; BLOCKS_PER_SEGMENT as usize * BLOCK];
        let mut tags = vec![0; BLOCKS_PER_SEGMENT as usize * TAG_BYTES];
        for first in (0..total).step_by(BLOCKS_PER_SEGMENT as usize) {
            let blocks = (total - first).min(BLOCKS_PER_SEGMENT) as usize;
            let (segment, tags) = (&mut segment[..blocks * BLOCK], &mut tags[..blocks * TAG_BYTES]);
            let disk = &self.inner.disk;
            disk.read_at(layout.tag_offset(first), tags, SCANNING)?;
            disk.read_at(layout.block_offset(first), segment, SCANNING)?;
            let blocks = segment
                .as_chunks::<BLOCK>()
                .0
                .iter()
                .zip(tags.as_chunks::<TAG_BYTES>().0);
            for (number, (block, tag)) in (first..).zip(blocks) {
                // Block 0 has a seal instead of a tag: reading it checks that.
                if number > 0 && *tag == [0; TAG_BYTES] {
                    continue;
                }
                found.blocks += 1;
                let matches = number > 0 && self.inner.tags.block(number, block) == *tag;
                if !matches && found.unmatched.len() < UNMATCHED_MAX {
                    found.unmatched.push(number);
                }
            }
            progress((first + BLOCKS_PER_SEGMENT).min(total), total);
        }
        for look in 0..LOOKS {
            if look > 0 && !found.unmatched.is_empty() {
                pause();
            }
            found
                .unmatched
                .retain(|number| !is_whole(&pages.read_at(number * BLOCK_BYTES, &mut [0; BLOCK])));
        }
        Ok(found)
    }
}

/// A file that was cut off meanwhile has no such block any more.
fn is_whole(read: &Result<(), ContainerError>) -> bool {
    matches!(
        read,
        Ok(()) | Err(ContainerError::BeyondEnd { .. } | ContainerError::UnwrittenBlock { .. })
    )
}
