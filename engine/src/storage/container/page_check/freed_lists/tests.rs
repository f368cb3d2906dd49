use super::*;
use crate::storage::container::{Container, MemoryDisk};
use redb::{Durability, ReadableDatabase, TableDefinition};
use std::sync::Arc;

const ROWS_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("versions");

fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |end| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    }
}

/// Works on a store of rows for some rounds, as the committer does: most commits in memory, checkpoints in two phases. A reader
/// that stays holds freed pages back. `after` is called behind each checkpoint.
fn work(disk: &Arc<MemoryDisk>, seed: u64, rounds: u64, after: impl Fn(&Container)) {
    let container = Container::create(Arc::clone(disk) as _, [7; 16]).unwrap();
    let database = redb::Builder::new()
        .set_cache_size(256 << 10)
        .create_with_backend(container.page_file())
        .unwrap();
    let mut dice = dice(seed);
    let mut readers = Vec::new();
    for _ in 0..rounds {
        for durability in [Durability::None, Durability::None, Durability::Immediate] {
            let mut transaction = database.begin_write().unwrap();
            transaction.set_durability(durability).unwrap();
            if matches!(durability, Durability::Immediate) {
                transaction.set_two_phase_commit(true);
                transaction.set_quick_repair(true);
            }
            {
                let mut table = transaction.open_table(ROWS_TABLE).unwrap();
                for _ in 0..dice(200) {
                    let value = vec![1; dice(2000) as usize];
                    table
                        .insert(&dice(5000).to_be_bytes()[..], value.as_slice())
                        .unwrap();
                }
                for _ in 0..dice(150) {
                    table.remove(&dice(5000).to_be_bytes()[..]).unwrap();
                }
            }
            transaction.commit().unwrap();
        }
        match dice(12) {
            0 => readers.clear(),
            1 => readers.push(database.begin_read().unwrap()),
            _ => {}
        }
        after(&container);
    }
    drop(readers);
}

/// The roots of the tables of lists.
fn roots(pages: &Pages) -> Vec<u64> {
    let mut header = [0; 320];
    pages.read_at(0, &mut header).unwrap();
    let slot = SLOTS[usize::from(header[FLAGS] & SECOND_SLOT)];
    let mut walk = Walk {
        pages,
        seen: BTreeSet::new(),
        tables: Vec::new(),
    };
    walk.definitions(number(&header, slot + ROOTS_IN_SLOT[1].1).unwrap(), 0)
        .unwrap();
    walk.tables.into_iter().map(|(root, _)| root).collect()
}

#[test]
fn what_redb_leaves_is_in_order_at_each_checkpoint() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let branches = AtomicUsize::new(0);
    for seed in 1..3 {
        work(&Arc::new(MemoryDisk::new()), seed, 60, |container| {
            container.check_freed_lists().unwrap();
            let pages = container.pages();
            for root in roots(&pages) {
                let mut page = vec![0; 4096];
                pages
                    .read_at(place_of(root).unwrap().0 * BLOCK_BYTES, &mut page)
                    .unwrap();
                branches.fetch_add(usize::from(page[0] == BRANCH), Ordering::Relaxed);
            }
        });
    }
    assert!(
        branches.load(Ordering::Relaxed) > 0,
        "lists in more than one page were seen"
    );
}

/// The story: of 20,000 damaged images, three made redb abort the process while it took its lists of freed pages apart, in a destructor
/// that met the panic's own cause again. Each of these is refused before redb begins.
#[test]
fn lists_of_freed_pages_that_would_make_redb_abort_are_refused_before_it_begins() {
    let disk = Arc::new(MemoryDisk::new());
    // The last state in which lists are in a leaf.
    let kept = std::sync::Mutex::new(None);
    work(&disk, 5, 12, |container| {
        let pages = container.pages();
        for root in roots(&pages) {
            let mut page = vec![0; 4096];
            let (block, blocks) = place_of(root).unwrap();
            pages.read_at(block * BLOCK_BYTES, &mut page).unwrap();
            if blocks == 1 && page[0] == LEAF && count(&page) > 1 {
                *kept.lock().unwrap() = Some((disk.to_bytes(), block, page));
            }
        }
    });
    let (image, block, page) = kept.into_inner().unwrap().unwrap();
    let lists = count(&page);
    let (key, list) = (4 + 4 * lists, 4 + 20 * lists);
    let with = |change: Change<'_>| {
        let container = Container::open(Arc::new(MemoryDisk::from_bytes(image.clone())) as _).unwrap();
        let mut changed = page.clone();
        change(&mut changed);
        // Tags are made anew.
        container.pages().write_at(block * BLOCK_BYTES, &changed).unwrap();
        container.check_freed_lists()
    };
    with(&|_| ()).unwrap();
    let crafted: [(&str, Change<'_>); 6] = [
        ("a list that ends behind the page", &|page| {
            page[4..8].copy_from_slice(&27_568u32.to_le_bytes());
        }),
        ("a page of a region that is not there", &|page| {
            page[list + 2..list + 10].copy_from_slice(&(6u64 << 20).to_le_bytes());
        }),
        ("keys that do not rise", &|page| page[key..key + 16].fill(0xff)),
        ("one list less than the table has", &|page| {
            let all: Vec<_> = entries(page, Some(LIST_KEY_BYTES)).flatten().collect();
            let less = super::super::tests::leaf(&all[1..], true);
            *page = less;
        }),
        ("a leaf of rows", &|page| {
            *page = super::super::tests::leaf(&[(b"a key", b"a value"), (b"b", b"another")], false);
        }),
        ("another page", &|page| page[0] = BRANCH),
    ];
    for (what, change) in crafted {
        let refused = with(change);
        // A page that is none at all is refused to redb as well, when it asks for it.
        let refused_later =
            refused.is_ok() && check_page(&changed(&page, change), image.len() as u64).is_err();
        assert!(
            refused_later || matches!(refused, Err(ContainerError::DamagedPage { .. })),
            "{what}: {refused:?}"
        );
    }
}

/// What is done to a page.
type Change<'c> = &'c dyn Fn(&mut Vec<u8>);

fn changed(page: &[u8], change: Change<'_>) -> Vec<u8> {
    let mut page = page.to_vec();
    change(&mut page);
    page
}
