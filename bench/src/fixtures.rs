//! The stores that cases work on: filled once, by all engines in turn, closed, and opened by each case as it needs them.

use crate::engines::{Durable, Engine, Keystead, RawRedb, Session};
use crate::measure::{OnDisk, now};
use crate::workload::{self, Order};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Values in one bulk commit.
pub(crate) const BULK: usize = 1_000;
/// Values that an engine takes before it is the next one's turn.
const TURN: u64 = 10_000;

/// How large everything is.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) dir: PathBuf,
    /// Secrets of the smaller store.
    pub(crate) small: u64,
    /// Secrets of the larger one.
    pub(crate) large: u64,
    pub(crate) organizations: u64,
    /// How often the engines take turns.
    pub(crate) rounds: usize,
    /// The page cache of each engine.
    pub(crate) cache_bytes: usize,
    pub(crate) quick: bool,
}

/// Stores of one size, one for each engine.
pub(crate) struct Fixture {
    dir: PathBuf,
    pub(crate) count: u64,
    /// Bulk puts a second, by engine and turn.
    pub(crate) bulk: BTreeMap<&'static str, Vec<f64>>,
    /// What the closed stores take.
    pub(crate) on_disk: BTreeMap<&'static str, OnDisk>,
}

impl Fixture {
    pub(crate) fn keystead(&self) -> PathBuf {
        self.dir.join("keystead")
    }

    pub(crate) fn redb(&self) -> PathBuf {
        self.dir.join("redb")
    }

    pub(crate) fn redb_quick(&self) -> PathBuf {
        self.dir.join("redb-quick")
    }

    #[cfg(feature = "sqlcipher")]
    pub(crate) fn sqlcipher(&self) -> PathBuf {
        self.dir.join("sqlcipher")
    }

    /// Fills the stores, `all` of them or Keystead's and redb's alone.
    pub(crate) fn fill(dir: &Path, count: u64, order: Order, all: bool, cache_bytes: usize) -> Result<Self> {
        std::fs::create_dir(dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut fixture = Self {
            dir: dir.into(),
            count,
            bulk: BTreeMap::new(),
            on_disk: BTreeMap::new(),
        };
        let mut engines: Vec<(Box<dyn Engine>, PathBuf)> = vec![
            (
                Box::new(Keystead::create(&fixture.keystead(), cache_bytes)?),
                fixture.keystead(),
            ),
            (
                Box::new(RawRedb::create(&fixture.redb(), cache_bytes, Durable::OnePhase)?),
                fixture.redb(),
            ),
        ];
        if all {
            let quick = RawRedb::create(&fixture.redb_quick(), cache_bytes, Durable::QuickRepair)?;
            engines.push((Box::new(quick), fixture.redb_quick()));
            #[cfg(feature = "sqlcipher")]
            {
                let sqlcipher = crate::engines::SqlCipher::create(&fixture.sqlcipher(), cache_bytes)?;
                engines.push((Box::new(sqlcipher), fixture.sqlcipher()));
            }
        }
        {
            let mut sessions = Vec::new();
            for (engine, _) in &engines {
                sessions.push((engine.name(), engine.session()?));
            }
            let mut from = 0;
            while from < count {
                let to = count.min(from + TURN);
                fixture.turn(&mut sessions, order, from..to)?;
                from = to;
            }
        }
        for (engine, path) in engines {
            let name = engine.name();
            drop(engine);
            fixture.on_disk.insert(name, OnDisk::of(&[path])?);
        }
        Ok(fixture)
    }

    fn turn(
        &mut self,
        sessions: &mut [(&'static str, Box<dyn Session + '_>)],
        order: Order,
        numbers: std::ops::Range<u64>,
    ) -> Result<()> {
        let rows = workload::rows(order, numbers);
        for (name, session) in sessions.iter_mut() {
            let began = now();
            for batch in rows.chunks(BULK) {
                session.put_all(batch)?;
            }
            let rate = rows.len() as f64 / began.elapsed().as_secs_f64();
            self.bulk.entry(name).or_default().push(rate);
        }
        // Who went first comes last.
        sessions.rotate_left(1);
        Ok(())
    }
}

/// The stores, filled when the first case asks for them.
pub(crate) struct Fixtures {
    pub(crate) settings: Settings,
    small: Option<Fixture>,
    large: Option<Fixture>,
    ascending: Option<Fixture>,
}

impl Fixtures {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            small: None,
            large: None,
            ascending: None,
        }
    }

    /// All engines, paths scattered.
    pub(crate) fn small(&mut self) -> Result<&Fixture> {
        Self::get(
            &mut self.small,
            &self.settings,
            "small",
            self.settings.small,
            Order::Scattered,
            true,
        )
    }

    /// Keystead and redb, paths scattered.
    pub(crate) fn large(&mut self) -> Result<&Fixture> {
        Self::get(
            &mut self.large,
            &self.settings,
            "large",
            self.settings.large,
            Order::Scattered,
            false,
        )
    }

    /// As many as in the smaller store, paths ascending.
    pub(crate) fn ascending(&mut self) -> Result<&Fixture> {
        Self::get(
            &mut self.ascending,
            &self.settings,
            "ascending",
            self.settings.small,
            Order::Ascending,
            true,
        )
    }

    fn get<'f>(
        slot: &'f mut Option<Fixture>,
        settings: &Settings,
        name: &str,
        count: u64,
        order: Order,
        all: bool,
    ) -> Result<&'f Fixture> {
        if slot.is_none() {
            crate::progress(&format!("filling stores of {count} secrets ({name})"));
            *slot = Some(Fixture::fill(
                &settings.dir.join(name),
                count,
                order,
                all,
                settings.cache_bytes,
            )?);
        }
        slot.as_ref().context("a fixture was just filled")
    }
}
