//! One emulator's process: started on a free port, ended with its owner; and what outlives it, where it is to be killed and started
//! again.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::Value;
use tempfile::TempDir;

use super::install::{Peer, cache, last_lines};
use super::pause_a_moment;
use crate::notes;

/// Longest wait for the first answer; importing the emulator takes seconds on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(180);

/// How often a peer is started on ports that were free a moment ago.
pub(super) const STARTS_MAX: u32 = 3;

/// How much of a log is looked at for its end.
const LOG_END_BYTES: u64 = 16 * 1024;

/// How a peer's process is started: [`Process::start`] or [`Process::start_kept`].
pub(super) type Start = fn(&'static Peer, &Path, &[&str]) -> anyhow::Result<Process>;

#[derive(Debug)]
pub(super) struct Process {
    peer: &'static Peer,
    python: PathBuf,
    arguments: Vec<String>,
    child: Child,
    /// What the emulator announced: its name and version, its ports, its certificate.
    facts: Value,
    /// Its standard error: a file without a name, so that nothing is left behind.
    log: File,
    /// The emulator ends when this pipe closes, and the system closes it however this process ends.
    _alive: Option<ChildStdin>,
    /// Its keys and its ports, if they outlive it.
    kept: Option<Kept>,
}

impl Process {
    /// Starts the emulator and waits until it takes connections.
    pub(super) fn start(peer: &'static Peer, python: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let log = tempfile::tempfile().context("making a file for its log")?;
        let mut command = Command::new(python);
        command.args(["-c", peer.program]).args(arguments);
        for (name, _) in std::env::vars_os() {
            // The caller's own environment must not reach into the emulator.
            let name_text = name.to_string_lossy();
            if ["AWS_", "BAO_", "VAULT_"]
                .iter()
                .any(|start| name_text.starts_with(start))
            {
                command.env_remove(name);
            }
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("running {}", python.display()))?;
        let alive = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .context("the emulator has no standard output")?;
        // From here on the process is ended if anything goes wrong.
        let mut this = Self {
            peer,
            python: python.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.into()).collect(),
            child,
            facts: Value::Null,
            log,
            _alive: alive,
            kept: None,
        };
        let (announce, announced) = channel::<serde_json::Result<Value>>();
        std::thread::spawn(move || {
            // Reads on to the end, so that the emulator never waits for a full pipe.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with('{') {
                    let _ = announce.send(serde_json::from_str(&line));
                }
            }
        });
        this.facts = match announced.recv_timeout(START_DEADLINE) {
            Ok(facts) => facts.context("the emulator announced something that is not JSON")?,
            Err(_) => bail!("it did not say its port; the end of its log:\n{}", this.log_end()),
        };
        this.wait_until_it_listens()?;
        let who = this
            .text("peer")
            .context("it does not say its name and version")?;
        notes::tested_with(peer.backend, who);
        Ok(this)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "how long a process takes to start is real time"
    )]
    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let port = self.port().context("the emulator announced no port")?;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            self.still_runs()?;
            if started.elapsed() > START_DEADLINE {
                bail!(
                    "it took no connection within {START_DEADLINE:?}; the end of its log:\n{}",
                    self.log_end()
                );
            }
            pause_a_moment();
        }
        Ok(())
    }

    /// An error that says how it ended, if it has.
    pub(super) fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}; the end of its log:\n{}", self.log_end()),
        }
    }

    /// The port of plain HTTP.
    pub(super) fn port(&self) -> Option<u16> {
        self.number("port")
    }

    /// The port of HTTPS, where the emulator has one.
    pub(super) fn https_port(&self) -> Option<u16> {
        self.number("https_port")
    }

    /// The certificate of the HTTPS port, as PEM.
    pub(super) fn certificate(&self) -> Option<&str> {
        self.facts["certificate"].as_str()
    }

    /// Something else that was announced, as text.
    pub(super) fn text(&self, fact: &str) -> Option<&str> {
        self.facts[fact].as_str()
    }

    fn number(&self, fact: &str) -> Option<u16> {
        self.facts[fact]
            .as_u64()
            .and_then(|number| u16::try_from(number).ok())
    }

    /// Stops it in its tracks, and returns when it stands still: until a thread of it has come to take the signal, which can be long
    /// on a busy machine, the others go on and answer.
    ///
    /// It does not outlive its owner: when this is dropped it is killed, and if this process ends before that, the system wakes and hangs
    /// up whoever is stopped in a process group that nobody is left to care for.
    pub(super) fn pause(&self) -> anyhow::Result<()> {
        self.signal("STOP")?;
        let stopped = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED)?;
        if !stopped.is_some_and(|(_, status)| status.stopped()) {
            bail!("the emulator ended instead of stopping: {stopped:?}");
        }
        Ok(())
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub(super) fn resume(&self) -> anyhow::Result<()> {
        self.signal("CONT")
    }

    /// Sends a signal by its name, such as `STOP`.
    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()?;
        if !status.success() {
            bail!(
                "sending {name} to the emulator's process {} failed: {status}",
                self.child.id()
            );
        }
        Ok(())
    }

    /// Ends the process in the middle of whatever it does, by SIGKILL. Who connects to it is refused until it is started again.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("killing the emulator")?;
        self.child.wait().context("waiting for the killed emulator")?;
        Ok(())
    }

    /// Starts one whose keys and ports outlive its process.
    pub(super) fn start_kept(peer: &'static Peer, python: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut start = 1;
        loop {
            let kept = Kept::new()?;
            let own = kept.arguments();
            let own = own.iter().map(String::as_str);
            let all: Vec<&str> = arguments.iter().copied().chain(own).collect();
            match Self::start(peer, python, &all) {
                Ok(mut process) => {
                    process.kept = Some(kept);
                    return Ok(process);
                }
                // Another test may have taken its ports in between.
                Err(_) if start < STARTS_MAX => start += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts one that is kept again, at the same address, and waits until it takes connections.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        if self.kept.is_none() {
            bail!("only an emulator that is kept can be started again");
        }
        self.kill()?;
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let started = Self::start(self.peer, &self.python, &arguments);
        let mut started = started.context("starting the emulator again")?;
        started.kept = self.kept.take();
        *self = started;
        Ok(())
    }

    /// The end of the log. Read without moving the file's position, which is also the emulator's.
    fn log_end(&self) -> String {
        let length = self.log.metadata().map_or(0, |metadata| metadata.len());
        let mut end = vec![0; length.min(LOG_END_BYTES) as usize];
        match self
            .log
            .read_exact_at(&mut end, length - length.min(LOG_END_BYTES))
        {
            Ok(()) => last_lines(&String::from_utf8_lossy(&end)),
            Err(error) => format!("(it could not be read: {error})"),
        }
    }
}

/// What outlives a peer's process, so that it can be killed and comes back with its keys, at the same address.
#[derive(Debug)]
pub(super) struct Kept {
    directory: TempDir,
    /// Held for as long as this lives: while the peer is away its ports look free.
    _ports: File,
    port: u16,
    https_port: u16,
}

/// Below the ports that systems give out by themselves, to connections as well: none of them is taken while the peer is away. Taken
/// in blocks of four: OpenBao wants the one behind each of its own, too.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

impl Kept {
    pub(super) fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("keystead-peer-").tempdir()?;
        let locks = cache()?.join("ports");
        std::fs::create_dir_all(&locks).context("making the directory of the ports that are taken")?;
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        for attempt in 0..1000 {
            // Hashers are seeded at random, each process otherwise.
            let drawn = RandomState::new().hash_one(attempt) % u64::from(PORTS.end - PORTS.start);
            let first = PORTS.start + (drawn as u16 & !3);
            let ports = File::create(locks.join(first.to_string()))?;
            if ports.try_lock().is_ok() && (first..first + 4).all(is_free) {
                return Ok(Self {
                    directory,
                    _ports: ports,
                    port: first,
                    https_port: first + 2,
                });
            }
        }
        bail!(
            "no free ports were found between {} and {}",
            PORTS.start,
            PORTS.end
        )
    }

    /// What the programs of peers take: directory, port, port of HTTPS.
    fn arguments(&self) -> [String; 3] {
        [
            self.directory.path().display().to_string(),
            self.port.to_string(),
            self.https_port.to_string(),
        ]
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process, too. That it has ended by itself is no fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
