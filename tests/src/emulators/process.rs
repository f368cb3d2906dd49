//! One emulator's process: started on a free port, ended with its owner.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::install::{Peer, last_lines};
use super::pause_a_moment;
use crate::notes;

/// Longest wait for the first answer; importing the emulator takes seconds on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How much of a log is looked at for its end.
const LOG_END_BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// What the emulator announced: its name and version, its ports, its certificate.
    facts: Value,
    /// Its standard error: a file without a name, so that nothing is left behind.
    log: File,
    /// The emulator ends when this pipe closes, and the system closes it however this process ends.
    _alive: Option<ChildStdin>,
}

impl Process {
    /// Starts the emulator and waits until it takes connections.
    pub(super) fn start(peer: &Peer, python: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
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
            child,
            facts: Value::Null,
            log,
            _alive: alive,
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
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}; the end of its log:\n{}", self.log_end());
            }
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

    /// Sends a signal by its name, such as `STOP`.
    pub(super) fn signal(&self, name: &str) -> anyhow::Result<()> {
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

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process, too. That it has ended by itself is no fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
