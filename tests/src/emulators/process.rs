//! One emulator's process: started on a free port, ended with its owner.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::install::{cache, last_lines};
use super::pause_a_moment;

const SERVE: &str = include_str!("../../emulators/serve.py");

/// Longest wait for the first answer; importing the emulator takes seconds on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    port: u16,
    log: PathBuf,
    /// The emulator ends when this pipe closes, and the system closes it however this process ends.
    _alive: Option<ChildStdin>,
}

impl Process {
    /// Starts the emulator and waits until it takes connections.
    pub(super) fn start(python: &Path, emulator: &str) -> anyhow::Result<Self> {
        let logs = cache()?.join("logs");
        fs::create_dir_all(&logs)?;
        let log = tempfile::Builder::new()
            .prefix(emulator)
            .suffix(".log")
            .tempfile_in(&logs)?
            .keep()?
            .1;
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
            .stderr(File::options().append(true).open(&log)?)
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

    fn log_end(&self) -> String {
        last_lines(&fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process, too. That it has ended by itself is no fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}
