//! Loss of power at any point: what was acknowledged is there, what was not is there whole or not at all.
//!
//! The disk of these tests keeps what was synced, and what was written since. When power goes, each sector of each write since
//! the last sync is kept or lost by a coin of its own (or all, or none of them); lengths are kept up to some point of their order.
//! A failing case is repeated from the seed that proptest prints.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;

#[derive(Debug, Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Debug)]
struct PowerLossDisk {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    synced: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<Pending>,
    /// Writing operations until power goes.
    left: u64,
}

/// A small generator of coins (splitmix64).
struct Coins(u64);

impl Coins {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl PowerLossDisk {
    fn new(bytes: Vec<u8>, left: u64) -> Arc<Self> {
        let state = State {
            synced: bytes.clone(),
            current: bytes,
            pending: Vec::new(),
            left,
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    /// What is on the disk after power went.
    fn after_power_loss(&self, coins: &mut Coins) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let mut bytes = state.synced.clone();
        let lengths = state
            .pending
            .iter()
            .filter(|pending| matches!(pending, Pending::SetLen(_)))
            .count();
        let mut lengths_kept = coins.below(lengths as u64 + 1);
        let luck = coins.below(4);
        for pending in &state.pending {
            match pending {
                Pending::SetLen(len) if lengths_kept > 0 => {
                    bytes.resize(*len as usize, 0);
                    lengths_kept -= 1;
                }
                Pending::SetLen(_) => {}
                Pending::Write(offset, data) => {
                    let (mut at, end) = (*offset as usize, *offset as usize + data.len());
                    while at < end {
                        let sector_end = (at / 512 * 512 + 512).min(end);
                        let kept = match luck {
                            0 => true,
                            1 => false,
                            _ => coins.below(2) == 0,
                        };
                        if kept && sector_end <= bytes.len() {
                            let from = at - *offset as usize;
                            bytes[at..sector_end].copy_from_slice(&data[from..from + sector_end - at]);
                        }
                        at = sector_end;
                    }
                }
            }
        }
        bytes
    }
}

impl State {
    fn spend(&mut self) -> io::Result<()> {
        if self.left == 0 {
            return Err(io::Error::other("power is gone"));
        }
        self.left -= 1;
        Ok(())
    }
}

fn apply(bytes: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::Write(offset, data) => bytes[*offset as usize..][..data.len()].copy_from_slice(data),
        Pending::SetLen(len) => bytes.resize(*len as usize, 0),
    }
}

impl Disk for PowerLossDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().current.len() as u64)
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let source = state.current.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.write(Pending::SetLen(len))
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(
            offset + data.len() as u64 <= self.len()?,
            "the container writes inside of the length only"
        );
        self.write(Pending::Write(offset, data.to_vec()))
    }
    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.spend()?;
        let State { synced, pending, .. } = &mut *state;
        pending.drain(..).for_each(|pending| apply(synced, &pending));
        Ok(())
    }
}

impl PowerLossDisk {
    fn write(&self, pending: Pending) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        // The write that power interrupts is one of those in doubt.
        let spent = state.spend();
        apply(&mut state.current, &pending);
        state.pending.push(pending);
        spent
    }
}

/// What the store is known to hold, and what it may hold as well.
#[derive(Debug, Clone, Default)]
struct Known {
    rows: BTreeMap<u64, Vec<u8>>,
    rows_in_doubt: Option<BTreeMap<u64, Vec<u8>>>,
    cells: BTreeMap<u64, Option<u8>>,
    /// Cells that are being written or erased: the new content, beside the old.
    cells_in_doubt: BTreeMap<u64, Option<u8>>,
}

const GENERATION: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("generation");
/// The key of its one row.
const ONE: &[u8] = b"generation";

/// A store in miniature: commits are journaled, or checkpoints.
struct Store {
    container: Container,
    database: Database,
    generation: u64,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

impl Store {
    fn create(disk: Arc<dyn Disk>) -> Outcome<Self> {
        let container = Container::create(disk, STORE_ID)?;
        let database = open_redb(&container)?;
        let mut store = Self {
            container,
            database,
            generation: 0,
        };
        store.checkpoint(&BTreeMap::new())?;
        Ok(store)
    }

    fn open(disk: Arc<dyn Disk>) -> Outcome<Self> {
        let container = Container::open(disk)?;
        let database = open_redb(&container)?;
        let generation = database
            .begin_read()?
            .open_table(GENERATION)?
            .get(ONE)?
            .ok_or("no generation")?
            .value()
            .try_into()
            .map(u64::from_be_bytes)?;
        let mut records = Vec::new();
        container
            .journal()
            .replay::<ContainerError>(generation, |payload| {
                records.push(payload.to_vec());
                Ok(())
            })?;
        let mut store = Self {
            container,
            database,
            generation,
        };
        let rows = records.into_iter().map(|record| {
            let (row, value) = record.split_first_chunk().expect("a record begins with its row");
            (u64::from_le_bytes(*row), value.to_vec())
        });
        store.checkpoint(&rows.collect())?;
        Ok(store)
    }

    fn put(&self, durability: redb::Durability, rows: &BTreeMap<u64, Vec<u8>>) -> Outcome<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        if matches!(durability, redb::Durability::Immediate) {
            transaction.set_quick_repair(true);
            transaction
                .open_table(GENERATION)?
                .insert(ONE, &(self.generation + 1).to_be_bytes()[..])?;
        }
        {
            let mut table = transaction.open_table(ROWS)?;
            for (row, value) in rows {
                table.insert(&row.to_be_bytes()[..], value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn checkpoint(&mut self, rows: &BTreeMap<u64, Vec<u8>>) -> Outcome<()> {
        self.put(redb::Durability::Immediate, rows)?;
        self.generation += 1;
        self.container.journal().restart(self.generation);
        Ok(())
    }

    fn journaled(&mut self, row: u64, value: &[u8]) -> Outcome<()> {
        self.put(redb::Durability::None, &BTreeMap::from([(row, value.to_vec())]))?;
        Ok(self
            .container
            .journal()
            .append(self.generation, &[&row.to_le_bytes(), value])?)
    }
}

/// Works until power goes or the work is done. What is acknowledged goes into `known`.
fn work(store: &mut Store, known: &mut Known, coins: &mut Coins) -> Outcome<()> {
    for _ in 0..coins.below(12) + 4 {
        let kind = coins.below(8);
        if kind < 5 {
            let bytes = if coins.below(6) == 0 {
                coins.below(200_000)
            } else {
                coins.below(3000)
            } as usize;
            let (row, value) = (coins.below(40), vec![coins.next() as u8; bytes]);
            let mut rows = known.rows.clone();
            rows.insert(row, value.clone());
            known.rows_in_doubt = Some(rows);
            if kind < 3 {
                store.journaled(row, &value)?;
            } else {
                store.checkpoint(&BTreeMap::from([(row, value)]))?;
            }
            known.rows = known.rows_in_doubt.take().expect("it was put there above");
            continue;
        }
        let numbers: Vec<u64> = (0..coins.below(9))
            .map(|_| [coins.below(60), 890 + coins.below(12)][coins.below(2) as usize])
            .collect();
        let fill = (kind == 5 || kind == 6).then(|| coins.next() as u8 | 1);
        let capacity = store.container.cell_capacity();
        known.cells_in_doubt = numbers
            .iter()
            .filter(|n| fill.is_some() || **n < capacity)
            .map(|n| (*n, fill))
            .collect();
        let cells: Vec<CellNumber> = known.cells_in_doubt.keys().map(|n| CellNumber(*n)).collect();
        match fill {
            Some(fill) => {
                let key = [fill; 32];
                store
                    .container
                    .write_cells(&cells.iter().map(|cell| (*cell, &key)).collect::<Vec<_>>())?;
            }
            None => store.container.erase_cells(&cells)?,
        }
        let done = std::mem::take(&mut known.cells_in_doubt);
        known.cells.extend(done);
    }
    Ok(())
}

fn cell_fill(container: &Container, cell: u64) -> Option<u8> {
    if cell >= container.cell_capacity() {
        return None;
    }
    match container.read_cell(CellNumber(cell)) {
        Ok(key) => {
            assert_eq!(key.as_slice(), [key.as_slice()[0]; 32]);
            Some(key.as_slice()[0])
        }
        Err(ContainerError::ErasedCell { .. }) => None,
        Err(error) => panic!("cell {cell}: {error}"),
    }
}

/// Looks at an opened store, and settles what was in doubt by what is there.
fn settle(store: &Store, known: &mut Known) {
    let rows: BTreeMap<_, _> = match read_rows(&store.database) {
        Ok(rows) => rows.into_iter().collect(),
        Err(redb::Error::TableDoesNotExist(_)) => BTreeMap::new(),
        Err(error) => panic!("reading rows: {error}"),
    };
    assert!(
        rows == known.rows || Some(&rows) == known.rows_in_doubt.as_ref(),
        "rows are lost or torn"
    );
    known.rows = rows;
    known.rows_in_doubt = None;
    let in_doubt = std::mem::take(&mut known.cells_in_doubt);
    for cell in (0..60).chain(890..902) {
        let found = cell_fill(&store.container, cell);
        let old = known.cells.get(&cell).copied().flatten();
        let allowed = found == old || in_doubt.get(&cell) == Some(&found);
        assert!(
            allowed,
            "cell {cell}: found {found:?}, it was {old:?}, in doubt {:?}",
            in_doubt.get(&cell)
        );
        known.cells.insert(cell, found);
    }
}

fn live_through_power_losses(seed: u64) {
    let mut coins = Coins(seed);
    let mut known = Known::default();
    let disk = PowerLossDisk::new(Vec::new(), u64::MAX);
    let mut store = Store::create(Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    // The first loss comes early or late; the later ones may well come while opening.
    disk.state.lock().unwrap().left = coins.below(400);
    let _ = work(&mut store, &mut known, &mut coins);
    drop(store);
    let mut bytes = disk.after_power_loss(&mut coins);
    for _ in 0..3 {
        let left = [coins.below(40), coins.below(400)][coins.below(2) as usize];
        let disk = PowerLossDisk::new(bytes, left);
        if let Ok(mut store) = Store::open(Arc::clone(&disk) as Arc<dyn Disk>) {
            settle(&store, &mut known);
            let _ = work(&mut store, &mut known, &mut coins);
        } else {
            assert_eq!(
                disk.state.lock().unwrap().left,
                0,
                "it fails to open only because power went again"
            );
        }
        bytes = disk.after_power_loss(&mut coins);
    }
    let disk = PowerLossDisk::new(bytes, u64::MAX);
    let mut store = Store::open(disk).unwrap();
    settle(&store, &mut known);
    assert!(store.database.check_integrity().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_and_what_was_not_is_whole_or_absent(seed in any::<u64>()) {
        live_through_power_losses(seed);
    }
}

/// Updates of the header that follow each other with no other sync between them: a copy is never written while the other
/// one is in doubt.
#[test]
fn power_may_go_in_any_of_many_header_updates_in_a_row() {
    let (new, container) = new_container();
    container.pages().resize(4096 * 20).unwrap();
    for left in 0..12 {
        for seed in 0..8 {
            let disk = PowerLossDisk::new(new.to_bytes(), left);
            let container = Container::open(Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
            let pages = container.pages();
            let mut blocks = 20;
            while pages.resize(4096 * (blocks - 1)).is_ok() {
                blocks -= 1;
            }
            let after = open_bytes(disk.after_power_loss(&mut Coins(seed))).unwrap();
            let found = after.inner.layout().page_blocks;
            assert!(
                found == blocks || found == blocks - 1,
                "{found} of {blocks}, left {left}, seed {seed}"
            );
        }
    }
}

/// A cell segment that is listed is there, and all its cells are erased or whole.
#[test]
fn power_may_go_while_cells_and_pages_get_more_room() {
    let (new, container) = new_container();
    container.pages().resize(4096 * 3).unwrap();
    for left in 0..14 {
        for seed in 0..12 {
            let disk = PowerLossDisk::new(new.to_bytes(), left);
            let container = Container::open(Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
            let written = container
                .write_cells(&[(CellNumber(0), &[1; 32]), (CellNumber(896), &[2; 32])])
                .is_ok();
            let grown = container.pages().resize(4096 * 300).is_ok();
            let after = open_bytes(disk.after_power_loss(&mut Coins(seed))).unwrap();
            let fills = [cell_fill(&after, 0), cell_fill(&after, 896)];
            assert!(
                !written || fills == [Some(1), Some(2)],
                "left {left}, seed {seed}"
            );
            let blocks = after.inner.layout().page_blocks;
            assert!(
                blocks == 300 || (!grown && blocks == 3),
                "{blocks} blocks, left {left}, seed {seed}"
            );
        }
    }
}
