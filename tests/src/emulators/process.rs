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

use super::install::last_lines;
use super::pause_a_moment;

const SERVE: &str = include_str!("../../emulators/serve.py");

/// Longest wait for the first answer; importing the emulator takes seconds on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How much of a log is looked at for its end.
const LOG_END_BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    port: u16,
    /// Its standard error: a file without a name, so that nothing is left behind.
    log: File,
    /// The emulator ends when this pipe closes, and the system closes it however this process ends.
    _alive: Option<ChildStdin>,
}

impl Process {
    /// Starts the emulator and waits until it takes connections.
    pub(super) fn start(python: &Path, emulator: &str) -> anyhow::Result<Self> {
        let log = tempfile::tempfile().context("making a file for its log")?;
        let mut command = Command::new(python);
        command.args(["-c", SERVE, emulator]);
        for (name, _) in std::env::vars_os() {
            // The caller's own AWS environment must not reach into the emulator.
            if name.to_string_lossy().starts_with("AWS_") {
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
            port: 0,
            log,
            _alive: alive,
        };
        let (announce, announced) = channel();
        std::thread::spawn(move || {
            // Reads on to the end, so that the emulator never waits for a full pipe.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(port) = line.strip_prefix("port ") {
                    let _ = announce.send(port.trim().parse::<u16>());
                }
            }
        });
        this.port = match announced.recv_timeout(START_DEADLINE) {
            Ok(port) => port.context("the emulator announced a port that is none")?,
            Err(_) => bail!("it did not say its port; the end of its log:\n{}", this.log_end()),
        };
        this.wait_until_it_listens()?;
        Ok(this)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "how long a process takes to start is real time"
    )]
    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
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

    pub(super) fn port(&self) -> u16 {
        self.port
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
