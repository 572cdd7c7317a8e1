//! What comes as a stream of unknown length: standard input, or what a command prints.
//!
//! A thread reads ahead, a few blocks of bounded size; so an interruption ends the wait for a stream that is silent. A
//! command runs in a process group of its own, without this program's secrets, and is ended with all that is in its
//! group if it is not read to its end.

use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks that wait.
const BLOCKS_AHEAD: usize = 4;
/// Between two looks whether the run was interrupted.
const LOOK: Duration = Duration::from_millis(200);
/// Variables of this program begin with it: among them are passphrases.
const OWN_PREFIX: &[u8] = b"HOLDFAST_";

enum Event {
    Block(Vec<u8>),
    /// The end, and whether it is a good one.
    End(std::result::Result<(), String>),
}

/// A stream that is read once.
pub struct Stream {
    events: Receiver<Event>,
    /// The group of the command, until it ended.
    group: Option<Pid>,
}

impl Stream {
    /// Standard input.
    pub fn stdin() -> Stream {
        Self::begin(None, |out| read_all(std::io::stdin(), out).map_err(|e| format!("cannot read: {}", e.kind())))
    }

    /// What a reader gives.
    pub fn reader(input: impl Read + Send + 'static) -> Stream {
        Self::begin(None, |out| read_all(input, out).map_err(|e| format!("cannot read: {e}")))
    }

    /// What somebody writes.
    pub fn written(write: impl FnOnce(&mut dyn Write) -> Result<()> + Send + 'static) -> Stream {
        Self::begin(None, |out| {
            let mut blocks = Blocks { out, block: Vec::with_capacity(BLOCK_BYTES) };
            write(&mut blocks).and_then(|()| blocks.flush().map_err(|_| gone())).map_err(|e| e.what().to_owned())
        })
    }

    /// What a command prints; it fails if the command does.
    ///
    /// # Errors
    /// There is no such program, or it cannot be started.
    pub fn command(command: &[OsString]) -> Result<Stream> {
        let [program, arguments @ ..] = command else {
            return Err(Error::new(Kind::Config, "a command is needed").advise("give it after `--`"));
        };
        let name = program.to_string_lossy().into_owned();
        let own = std::env::vars_os().map(|(key, _)| key).filter(|key| key.as_encoded_bytes().starts_with(OWN_PREFIX));
        let mut call = Command::new(program);
        own.for_each(|key| _ = call.env_remove(key));
        call.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = call.spawn().map_err(|e| {
            let what = match e.kind() {
                std::io::ErrorKind::NotFound => "there is no such program".into(),
                kind => format!("it cannot be started: {kind}"),
            };
            Error::new(Kind::Config, what).at(&name)
        })?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let output = child.stdout.take();
        Ok(Self::begin(group, move |out| {
            let read = output.map_or(Ok(()), |output| read_all(output, out));
            let ended = end_of(child).map_err(|why| format!("{name}: {why}"));
            read.map_err(|e| format!("cannot read what {name} prints: {}", e.kind())).and(ended)
        }))
    }

    fn begin(
        group: Option<Pid>,
        read: impl FnOnce(&Sender<Event>) -> std::result::Result<(), String> + Send + 'static,
    ) -> Stream {
        let (out, events) = bounded(BLOCKS_AHEAD);
        // It ends with the stream, or stays in a read that nobody can end; the program does not wait for it.
        std::thread::spawn(move || {
            let ended = read(&out);
            // Whoever is gone wants no end.
            let _ = out.send(Event::End(ended));
        });
        Stream { events, group }
    }

    /// The next bytes; `None` at the end, if it is a good one.
    ///
    /// # Errors
    /// The stream broke, the command failed, or the run was interrupted.
    pub fn next(&mut self, cancel: &Cancel) -> Result<Option<Vec<u8>>> {
        loop {
            cancel.check()?;
            return match self.events.recv_timeout(LOOK) {
                Ok(Event::Block(bytes)) => Ok(Some(bytes)),
                Ok(Event::End(ended)) => {
                    self.group = None;
                    ended.map(|()| None).map_err(|why| Error::new(Kind::Source, why))
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => Err(Error::new(Kind::Bug, "the stream was read past its end")),
            };
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Gathers what is written into blocks.
struct Blocks<'o> {
    out: &'o Sender<Event>,
    block: Vec<u8>,
}

fn gone() -> Error {
    Error::new(Kind::Cancelled, "nobody reads the stream any more")
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.block.len() >= BLOCK_BYTES {
            self.flush()?;
        }
        let len = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
        self.out.send(Event::Block(block)).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads to the end, in blocks that are full but for the last.
fn read_all(mut input: impl Read, out: &Sender<Event>) -> std::io::Result<()> {
    loop {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let got = input.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        if got == 0 || out.send(Event::Block(block)).is_err() {
            return Ok(());
        }
    }
}

fn end_of(mut child: Child) -> std::result::Result<(), String> {
    let status: ExitStatus = child.wait().map_err(|e| format!("its end is not known: {}", e.kind()))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("the command failed with exit code {code}")),
        (None, Some(signal)) => Err(format!("the command was ended by signal {signal}")),
        (None, None) => Err("the command failed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(command: &[&str]) -> Result<Vec<u8>> {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let (mut stream, mut bytes) = (Stream::command(&command)?, Vec::new());
        while let Some(block) = stream.next(&Cancel::new())? {
            assert!(block.len() <= BLOCK_BYTES);
            bytes.extend(block);
        }
        Ok(bytes)
    }

    #[test]
    fn a_command_is_read_to_its_end_and_judged_by_it() {
        assert_eq!(all(&["sh", "-c", "head -c 5000000 /dev/zero"]).unwrap().len(), 5_000_000);
        assert!(all(&["true"]).unwrap().is_empty());
        let failed = all(&["sh", "-c", "echo some; exit 3"]).unwrap_err();
        assert_eq!((failed.kind(), failed.what()), (Kind::Source, "sh: the command failed with exit code 3"));
        let killed = all(&["sh", "-c", "kill -9 $$"]).unwrap_err();
        assert_eq!(killed.what(), "sh: the command was ended by signal 9");
        assert_eq!(all(&["no-such-program"]).unwrap_err().kind(), Kind::Config);
        assert_eq!(all(&[]).unwrap_err().kind(), Kind::Config);
    }

    #[test]
    fn a_stream_that_is_let_go_ends_its_command() {
        let dir = tempfile::TempDir::new().unwrap();
        let flag = dir.path().join("flag");
        let script = format!("trap '' PIPE; echo begun; read never < /dev/zero; touch {}", flag.display());
        let command: Vec<OsString> = ["sh", "-c", &script].iter().map(OsString::from).collect();
        let mut stream = Stream::command(&command).unwrap();
        let group = stream.group.unwrap();
        let cancel = Cancel::new();
        cancel.raise();
        assert_eq!(stream.next(&cancel).unwrap_err().kind(), Kind::Cancelled);
        drop(stream);
        // The reading thread reaps it.
        while rustix::process::test_kill_process_group(group).is_ok() {
            std::thread::yield_now();
        }
        assert!(!flag.exists());
    }
}
