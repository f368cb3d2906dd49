//! What a life reads, streams and re-wraps, and what a revoked or absent key may still serve.

use super::*;

impl Living {
    /// Begins a stream and drops it in its middle: nothing is there.
    pub(super) fn abandon_stream(&mut self, dice: &mut Dice) -> Result<(), Failure> {
        let names: Vec<String> = self.model.view.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let org = dice.choose(&names).clone();
        self.tell(format!("{org}: begin a stream and drop it"));
        let begun = self
            .store()
            .organization(&org)
            .and_then(|organization| organization.writer("streams/abandoned", PutOptions::new()));
        match begun {
            // Two MiB: a part of it is committed.
            Ok(mut writer) => drop(writer.write_all(&model::value(&org, "abandoned", 1, 2 << 20))),
            Err(error) => self.excuse("beginning a stream", &error)?,
        }
        self.same_shape("a_stream_is_there_whole_or_not")
    }

    /// Does steps of a running re-wrap job.
    pub(super) fn rewrap(&mut self, dice: &mut Dice, steps: u64) -> Result<(), Failure> {
        let names: Vec<String> = self.model.view.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let org = dice.choose(&names).clone();
        let organization = self.store().organization(&org).map_err(other("job_finishes"))?;
        let mut done = 0;
        while done < steps {
            done += 1;
            if done > 10_000 {
                return Err(broken("job_finishes", Harm::Other, "it goes on and on"));
            }
            match rewrap_step(&organization) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.excuse("a step of a re-wrap", &error)?;
                    break;
                }
            }
        }
        self.tell(format!("{org}: {done} steps of a re-wrap"));
        if organization.rewrap_job().is_err() {
            self.model = Arc::new(self.model.after(&Action::Rewrap { org }));
        }
        self.unsettle();
        self.same_shape("readable_throughout")?;
        if self.calm() { self.same_values() } else { Ok(()) }
    }

    pub(super) fn same_values(&mut self) -> Result<(), Failure> {
        let seen = observe(self.store()).map_err(|story| broken("readable_throughout", Harm::Torn, story))?;
        if seen.view == self.model.view {
            return Ok(());
        }
        Err(broken(
            "readable_throughout",
            Harm::Torn,
            unlike(&self.model.view, &seen.view),
        ))
    }

    /// Gives a running job another target.
    pub(super) fn retarget(&mut self, dice: &mut Dice) -> Result<(), Failure> {
        let names: Vec<String> = self.model.view.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let org = dice.choose(&names).clone();
        let enabled: Vec<String> = self.model.view[&org]
            .keys
            .iter()
            .filter(|(_, enabled)| **enabled)
            .map(|(name, _)| name.clone())
            .collect();
        let key = dice.choose(&enabled).clone();
        let organization = self.store().organization(&org).map_err(other("retarget"))?;
        let was_calm = self.calm();
        match organization.keys().retarget(&key).map(drop) {
            Ok(()) => {
                self.tell(format!("{org}: what is being moved goes to {key}"));
                self.model = Arc::new(self.model.granting(&org, &key));
            }
            Err(Error::NoJob { .. }) => return Ok(()),
            Err(error) => {
                self.tell(format!(
                    "{org}: what is being moved goes to {key}: refused: {error}"
                ));
                if was_calm {
                    return Err(broken(
                        "a_life_without_faults_goes_on",
                        Harm::Other,
                        error.to_string(),
                    ));
                }
                self.excuse("giving a job another target", &error)?;
            }
        }
        self.unsettle();
        self.same_shape("what_failed_changed_nothing")
    }

    /// Reads one version, and holds the outcome against what the KMS's state allows.
    pub(super) fn read(&mut self, dice: &mut Dice) -> Result<(), Failure> {
        let live: Vec<(String, String, u32, [u8; 32])> = self
            .model
            .view
            .iter()
            .flat_map(|(org, view)| {
                view.secrets
                    .iter()
                    .map(move |(path, versions)| (org, path, versions))
            })
            .flat_map(|(org, path, versions)| {
                versions
                    .iter()
                    .zip(1..)
                    .map(move |(version, n)| (org, path, version, n))
            })
            .filter_map(|(org, path, version, n)| match version {
                VersionView::Live(hash) => Some((org.clone(), path.clone(), n, *hash)),
                _ => None,
            })
            .collect();
        if live.is_empty() {
            return Ok(());
        }
        let (org, path, number, hash) = dice.choose(&live).clone();
        let version = Version::new(number).expect("versions count from 1");
        let (was_calm, before) = (self.calm(), self.env.elapsed());
        let planned = self.kms.faults_left() > 0;
        let read = self
            .store()
            .organization(&org)
            .and_then(|organization| organization.get_version(&path, version));
        let place = (org.clone(), path.clone(), number);
        match read {
            Ok(secret) => {
                self.tell(format!("{org}: read {path} version {number}"));
                self.figures.reads += 1;
                if model::hash(secret.value.as_ref()) != hash {
                    return Err(broken(
                        "never_a_wrong_value",
                        Harm::Other,
                        format!("{org} {path}"),
                    ));
                }
                if !was_calm {
                    self.may_serve(&org, before)?;
                }
                self.served.insert(place);
            }
            Err(error) => {
                self.tell(format!("{org}: read {path} version {number}: refused: {error}"));
                self.figures.reads_refused += 1;
                if was_calm {
                    let story = format!("{org} {path}: {error}");
                    return Err(broken("a_life_without_faults_goes_on", Harm::Other, story));
                }
                // An outage alone takes nothing away that was served in this very calm of the cache.
                let outage = |code: &ErrorCode| code.class() == ErrorClass::Retryable;
                let only_outage = !planned && self.lying.is_empty() && self.failing.values().all(outage);
                let lasts = before.saturating_sub(self.steady_since) < LIFETIME;
                if only_outage && lasts && self.served.contains(&place) {
                    let story = format!("{org} {path} was served and is not any more: {error}");
                    return Err(broken("an_outage_is_no_revocation", Harm::Other, story));
                }
                self.excuse("reading", &error)?;
            }
        }
        Ok(())
    }

    /// A value was served although not all of the KMS works: from the cache, or by a key that does. Of an organization whose
    /// every key fails only the first, and no longer than the KMS's last answer lasts; and not if that is a revocation that it has met.
    pub(super) fn may_serve(&mut self, org: &str, now: Duration) -> Result<(), Failure> {
        let seen = observe_shape(self.store()).map_err(|story| broken("acknowledged", Harm::Torn, story))?;
        let keys: BTreeSet<String> = seen
            .wraps
            .into_iter()
            .filter(|(organization, ..)| organization == org)
            .map(|(_, _, key)| kms_key(org, &key))
            .collect();
        if !keys.iter().all(|key| self.failing.contains_key(key)) {
            return Ok(());
        }
        self.figures.served_in_outage += 1;
        let last = self.kms.last_served(org).unwrap_or_default();
        if now.saturating_sub(last) >= LIFETIME {
            let story = format!(
                "{org} is served {} s after its KMS's last answer",
                (now - last).as_secs()
            );
            return Err(broken("an_outage_is_bounded", Harm::Other, story));
        }
        if keys
            .iter()
            .all(|key| self.noticed.contains(&(org.to_owned(), key.clone())))
        {
            let story = format!("{org} is served although every key of it was found revoked");
            return Err(broken("revocation_is_honoured", Harm::Other, story));
        }
        Ok(())
    }
}
