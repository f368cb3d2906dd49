//! The store that is damaged: three organizations, several epochs each, values in one row and in chunks, deleted and destroyed
//! versions, a finished and a running re-wrap job, a journal that is not empty. And every answer that it gives when it is whole.

use crate::contents::Contents;
use crate::disk::SimulatedDisk;
use crate::env::SimulatedEnv;
use crate::kms::SimulatedKms;
use keystead::{Backend, Batch, Organization, Store, StoreOptions, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// More than the sample has of anything.
const ALL: usize = 10_000;
const ORGANIZATIONS: [&str; 3] = ["acme", "globex", "initech"];

/// The sample and all that it answers.
pub struct Sample {
    /// The file, as a process that was killed leaves it.
    pub image: Contents,
    /// What it answers; `None`: a refusal.
    pub now: BTreeMap<Query, Option<String>>,
    /// The same before the last change in the journal. Damage to the last record cannot be told from one that power tore.
    pub before: BTreeMap<Query, Option<String>>,
    /// Every value that was ever put, as [`Query::Get`] tells it, by organization and path.
    pub put: BTreeSet<(String, String, String)>,
    /// Where anything stands in the file: the offsets of its 4096-byte pages that are not all zero.
    pub full: Vec<u64>,
    /// Where the records of the journal end.
    pub journal_end: u64,
    kms: SimulatedKms,
    seed: u64,
}

/// Something that can be asked of a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// The names of all organizations, and how many secrets each has.
    Organizations,
    /// The secrets of an organization.
    Secrets(String),
    /// The versions of a secret, without their values.
    History(String, String),
    /// The latest value at a path.
    Get(String, String),
    /// The value of a version.
    GetVersion(String, String, u32),
    /// The registered keys.
    Keys(String),
    /// All epochs.
    Epochs(String),
    /// The audit trail, chains checked.
    Audit(String),
    /// The re-wrap job.
    Job(String),
}

impl Query {
    /// True when the answer is a value, sealed where it belongs: nobody who writes the file can make another one.
    #[must_use]
    pub fn is_value(&self) -> bool {
        matches!(self, Self::Get(..) | Self::GetVersion(..))
    }

    /// The organization and path of a value.
    #[must_use]
    pub fn place(&self) -> Option<(&str, &str)> {
        match self {
            Self::Get(org, path) | Self::GetVersion(org, path, _) => Some((org, path)),
            _ => None,
        }
    }

    /// True when a put at another path of this organization does not change the answer.
    #[must_use]
    pub fn is_still_after_a_put_in(&self, org: &str) -> bool {
        match self {
            Self::Get(..) | Self::GetVersion(..) | Self::History(..) => true,
            Self::Organizations => false,
            Self::Secrets(own) | Self::Keys(own) | Self::Epochs(own) | Self::Audit(own) | Self::Job(own) => {
                own != org
            }
        }
    }

    /// Asks. Values are told by version and hash.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn ask(&self, store: &Store) -> keystead::Result<String> {
        let told = |secret: keystead::Secret| tell(secret.version.get(), secret.value.as_ref());
        Ok(match self {
            Self::Organizations => format!("{:?}", store.organizations(None, ALL)?),
            Self::Secrets(org) => format!("{:?}", store.organization(org)?.list("", None, ALL)?),
            Self::History(org, path) => format!("{:?}", store.organization(org)?.history(path, None, ALL)?),
            Self::Get(org, path) => told(store.organization(org)?.get(path)?),
            Self::GetVersion(org, path, version) => {
                let version = Version::new(*version).expect("versions count from 1");
                told(store.organization(org)?.get_version(path, version)?)
            }
            Self::Keys(org) => format!("{:?}", store.organization(org)?.keys().list()?),
            Self::Epochs(org) => format!("{:?}", store.organization(org)?.epochs()?),
            Self::Audit(org) => format!("{:?}", store.organization(org)?.audit(0, ALL)?),
            Self::Job(org) => format!("{:?}", store.organization(org)?.rewrap_status()?),
        })
    }
}

fn tell(version: u32, value: &[u8]) -> String {
    format!(
        "version {version}: {} bytes, {}",
        value.len(),
        blake3::hash(value)
    )
}

/// The value of a version: bytes that follow from its place.
fn value(org: &str, path: &str, version: u32, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{org}\n{path}\n{version}").as_bytes());
    hasher.finalize_xof().fill(&mut value);
    value
}

/// Puts, and remembers what.
struct Writer<'a> {
    organization: Organization,
    versions: BTreeMap<String, u32>,
    put: &'a mut BTreeSet<(String, String, String)>,
}

impl Writer<'_> {
    fn next(&mut self, path: &str, bytes: usize) -> Vec<u8> {
        let org = self.organization.name().to_string();
        let version = self.versions.entry(path.into()).or_default();
        *version += 1;
        let value = value(&org, path, *version, bytes);
        self.put.insert((org, path.into(), tell(*version, &value)));
        value
    }

    fn put(&mut self, path: &str, bytes: usize) -> keystead::Result<()> {
        let value = self.next(path, bytes);
        self.organization.put(path, value).map(drop)
    }

    fn fill(&mut self) -> keystead::Result<()> {
        let mut batch = Batch::new();
        let sizes = [0, 1, 16, 100, 700, 1024, 3000, 4000, 9000];
        for (n, bytes) in sizes.into_iter().cycle().take(2 * sizes.len()).enumerate() {
            let path = format!("many/{n}");
            let value = self.next(&path, bytes);
            batch = batch.put(&path, value)?;
        }
        self.organization.commit(batch)?;
        self.put("chunked", 150_000)?;
        for bytes in [10, 20, 30, 40] {
            self.put("versions", bytes)?;
        }
        let version = |number| Version::new(number).expect("versions count from 1");
        self.organization.delete("versions", version(2))?;
        self.organization.destroy("versions", version(3))
    }
}

impl Sample {
    /// Makes the sample of a seed.
    ///
    /// # Errors
    ///
    /// What the engine says: it should say nothing.
    pub fn build(seed: u64) -> keystead::Result<Self> {
        let (disk, kms) = (SimulatedDisk::new(), SimulatedKms::new());
        let mut put = BTreeSet::new();
        let store = options(&kms, seed).create_on_disk(disk.clone())?;
        for (n, org) in ORGANIZATIONS.iter().enumerate() {
            let organization = store
                .create_organization(org)?
                .acting_as("alice", "ticket 4711")?;
            let mut writer = Writer {
                organization: organization.clone(),
                versions: BTreeMap::new(),
                put: &mut put,
            };
            writer.fill()?;
            if n < 2 {
                let config = serde_json::json!({ "key": format!("{org}-own") });
                organization
                    .keys()
                    .add("own", "customer-kms", config)?
                    .run_here(|_| {})?;
                writer.put("after", 500)?;
            }
            if n == 0 {
                // Left as it is: a job that is running, with two live epochs.
                organization.keys().rotate("own")?;
                writer.put("behind", 500)?;
            }
        }
        store.close()?;
        drop(store);
        // From here on in the journal.
        let store = options(&kms, seed + 1).open_on_disk(disk.clone())?;
        let mut last = disk.contents();
        for (n, bytes) in [10, 2000, 70_000, 300, 5].into_iter().enumerate() {
            last = disk.contents();
            let organization = store.organization(ORGANIZATIONS[n % 3])?;
            let mut writer = Writer {
                organization,
                versions: BTreeMap::new(),
                put: &mut put,
            };
            writer.put(&format!("journaled/{n}"), bytes)?;
        }
        let image = disk.contents();
        drop(store);

        let mut sample = Self {
            now: BTreeMap::new(),
            before: BTreeMap::new(),
            full: full_pages(&image),
            journal_end: journal_end(&image),
            image,
            put,
            kms,
            seed,
        };
        let whole = sample.open(&SimulatedDisk::holding(sample.image.clone()))?;
        for query in queries(&whole)? {
            let answer = query.ask(&whole).ok();
            sample.now.insert(query, answer);
        }
        drop(whole);
        let earlier = sample.open(&SimulatedDisk::holding(last))?;
        sample.before = sample
            .now
            .keys()
            .map(|query| (query.clone(), query.ask(&earlier).ok()))
            .collect();
        Ok(sample)
    }

    /// Opens an image of this sample, with its KMS at hand.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub fn open(&self, disk: &Arc<SimulatedDisk>) -> keystead::Result<Store> {
        self.options().open_on_disk(disk.clone())
    }

    /// The options with which its images are opened.
    #[must_use]
    pub fn options(&self) -> StoreOptions {
        options(&self.kms, self.seed + 2)
    }

    /// The path of the put that follows damage, its organization, and its value.
    #[must_use]
    pub fn put_after(&self) -> (&'static str, &'static str, Vec<u8>) {
        (
            ORGANIZATIONS[1],
            "after/damage",
            value(ORGANIZATIONS[1], "after/damage", 1, 700),
        )
    }
}

fn options(kms: &SimulatedKms, seed: u64) -> StoreOptions {
    Store::options()
        .backend(Backend::new(kms.clone()).named("managed"))
        .backend(Backend::new(kms.clone()).named("customer-kms"))
        .env(Arc::new(SimulatedEnv::new(seed)))
        .kms_attempts_max(1)
        .background_rewrap(false)
        .cache_bytes(1 << 20)
}

fn queries(store: &Store) -> keystead::Result<Vec<Query>> {
    let mut queries = vec![Query::Organizations];
    for org in ORGANIZATIONS.map(String::from) {
        let organization = store.organization(&org)?;
        for info in organization.list("", None, ALL)?.items {
            queries.push(Query::Get(org.clone(), info.path.clone()));
            let versions = 1..=info.latest.get();
            if versions.end() > &1 {
                queries.push(Query::History(org.clone(), info.path.clone()));
            }
            queries
                .extend(versions.map(|version| Query::GetVersion(org.clone(), info.path.clone(), version)));
        }
        queries.extend([
            Query::Secrets(org.clone()),
            Query::Keys(org.clone()),
            Query::Epochs(org.clone()),
            Query::Audit(org.clone()),
            Query::Job(org),
        ]);
    }
    Ok(queries)
}

fn full_pages(image: &Contents) -> Vec<u64> {
    let mut page = [0; 4096];
    let offsets = (0..image.len() / 4096).map(|page| page * 4096);
    offsets
        .filter(|offset| image.read(*offset, &mut page) && page.iter().any(|byte| *byte != 0))
        .collect()
}

/// Where the last sector of the journal's records that is not zero ends, before the two blocks of marks: format version 1.
fn journal_end(image: &Contents) -> u64 {
    let mut region = vec![0; (4 << 20) - 8192];
    let is_there = image.read(65_536, &mut region);
    let used = region.iter().rposition(|byte| *byte != 0).filter(|_| is_there);
    65_536 + used.map_or(0, |last| (last as u64 + 1).next_multiple_of(512))
}
