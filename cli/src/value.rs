//! A value on its way into a store and out of it: in buffers that are erased, and that never grow.

use crate::exit::{Exit, Failure};
use keystead::{Organization, PutOptions, Version};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use zeroize::Zeroizing;

/// A value up to this size is put at once; a longer one as a stream.
const WHOLE_MAX_BYTES: usize = 1 << 20;
const COPY_BYTES: usize = 64 << 10;

/// Where a value comes from.
enum Source {
    File(File),
    Typed,
}

impl Source {
    fn open(file: Option<&Path>) -> Result<Self, Failure> {
        match file {
            Some(path) => {
                let failed = |error| Failure::io(format!("opening {}", path.display()), error);
                Ok(Self::File(File::open(path).map_err(failed)?))
            }
            None if io::stdin().is_terminal() => Ok(Self::Typed),
            None => Ok(Self::File(
                unbuffered(&io::stdin()).map_err(|error| Failure::io("reading the value", error))?,
            )),
        }
    }

    /// Fills `out` as far as the source goes.
    fn fill(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            let read = match self {
                Self::File(file) => file.read(&mut out[filled..]),
                Self::Typed => {
                    let mut terminal = console::Term::stderr();
                    terminal.write_all(b"Value (one line, not shown): ")?;
                    let line = Zeroizing::new(terminal.read_secure_line()?);
                    let room = out.get_mut(..line.len()).ok_or(io::ErrorKind::FileTooLarge)?;
                    room.copy_from_slice(line.as_bytes());
                    return Ok(line.len());
                }
            };
            match read {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A standard stream without the library's buffer, which nobody would erase.
pub(crate) fn unbuffered(stream: &impl AsFd) -> io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// A value on its way in.
pub(crate) struct Value {
    /// The whole value, or the first mebibyte of a longer one.
    start: Zeroizing<Vec<u8>>,
    /// Where the rest of a longer one is.
    rest: Option<Source>,
}

impl Value {
    /// Reads a value: from a file, from standard input, or typed on a terminal without being shown.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, Failure> {
        let mut source = Source::open(file)?;
        let mut start = Zeroizing::new(vec![0; WHOLE_MAX_BYTES]);
        let filled = source
            .fill(&mut start)
            .map_err(|error| Failure::io("reading the value", error))?;
        let rest = (filled == WHOLE_MAX_BYTES).then_some(source);
        start.truncate(filled);
        Ok(Self { start, rest })
    }

    /// Leaves out one newline at the end.
    pub(crate) fn strip_newline(&mut self) -> Result<(), Failure> {
        if self.rest.is_some() {
            return Err(Failure::usage("--strip-newline is for values under 1 MiB"));
        }
        if self.start.ends_with(b"\n") {
            self.start.pop();
            if self.start.ends_with(b"\r") {
                self.start.pop();
            }
        }
        Ok(())
    }
}

/// Puts a value: at once, or a long one as a stream.
pub(crate) fn put_value(
    organization: &Organization,
    path: &str,
    value: Value,
    options: PutOptions,
) -> Result<Version, Failure> {
    let Some(mut rest) = value.rest else {
        return Ok(organization.put_with(path, &*value.start, options)?);
    };
    let mut writer = organization.writer(path, options)?;
    let writing = |error| Failure::io("writing the value", error);
    writer.write_all(&value.start).map_err(writing)?;
    let mut buffer = Zeroizing::new(vec![0; COPY_BYTES]);
    loop {
        let filled = rest
            .fill(&mut buffer)
            .map_err(|error| Failure::io("reading the value", error))?;
        writer.write_all(&buffer[..filled]).map_err(writing)?;
        if filled < buffer.len() {
            return Ok(writer.finish()?);
        }
    }
}

/// Text that cannot drive a terminal.
pub(crate) fn is_text(value: &[u8]) -> bool {
    std::str::from_utf8(value)
        .is_ok_and(|text| !text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c)))
}

/// The whole value, in one buffer of its size.
pub(crate) fn read_whole(reader: &mut impl Read, size_bytes: u64) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let size = usize::try_from(size_bytes.min(keystead::VALUE_MAX_BYTES)).unwrap_or(0);
    let mut value = Zeroizing::new(vec![0; size]);
    let failed = |error| Failure::io("reading the value", error);
    reader.read_exact(&mut value).map_err(failed)?;
    // The reader checks at the end that nothing was cut off.
    if reader.read(&mut [0]).map_err(failed)? > 0 {
        return Err(Failure::new(
            Exit::Damaged,
            "damaged",
            "the value is longer than its header says",
        ));
    }
    Ok(value)
}

/// Copies a value through one buffer that is erased.
pub(crate) fn copy(reader: &mut impl Read, writer: &mut impl Write) -> Result<(), Failure> {
    let mut buffer = Zeroizing::new(vec![0; COPY_BYTES]);
    loop {
        match reader
            .read(&mut buffer)
            .map_err(|error| Failure::io("reading the value", error))?
        {
            0 => return Ok(()),
            count => {
                writer
                    .write_all(&buffer[..count])
                    .map_err(|error| Failure::io("writing the value", error))?;
            }
        }
    }
}

/// Writes a file of mode 0600 under a temporary name, and gives it its name when it is whole.
pub(crate) fn write_file(reader: &mut impl Read, output: &Path, force: bool) -> Result<(), Failure> {
    let failed = |error| Failure::io(format!("writing {}", output.display()), error);
    let directory = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    copy(reader, &mut file)?;
    file.as_file().sync_all().map_err(failed)?;
    if force {
        file.persist(output).map_err(|error| failed(error.error))?;
        return Ok(());
    }
    match file.persist_noclobber(output) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::new(
            Exit::Conflict,
            "file-exists",
            format!(
                "{} is there already; choose another name, or --force",
                output.display()
            ),
        )),
        Err(error) => Err(failed(error.error)),
    }
}
