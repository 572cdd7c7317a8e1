//! A program that is run beside the work: in a process group of its own, for a bounded time, with the last of what it
//! printed, and without this program's secrets.

use crate::base::Cancel;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use std::collections::VecDeque;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Variables of this program begin with it: among them are passphrases.
const OWN_PREFIX: &str = "HOLDFAST_";
/// What the service manager said to this program alone.
const OWN: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];
/// What is kept of the output, in bytes: the end.
const OUTPUT_BYTES_MAX: usize = 4 << 10;
/// Between the request to end and the end.
const TERM_TIME: Duration = Duration::from_secs(5);
/// Longest time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What is run, and how.
pub struct Call<'c> {
    /// The program and its arguments.
    pub command: &'c [String],
    /// Variables that it gets besides the environment.
    pub variables: &'c [(&'static str, String)],
    /// What stands on its standard input.
    pub input: &'c [u8],
    /// How long it may take.
    pub timeout: Duration,
    /// How long it may take once the run is interrupted.
    pub grace: Duration,
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How long it took, milliseconds.
    pub ms: u64,
    /// Why it failed; `None`: it did not.
    pub why: Option<String>,
    /// The end of what it printed.
    pub output: String,
}

/// Runs a program to its end, or ends it with all that it started in its group.
pub fn run(call: &Call<'_>, cancel: &Cancel) -> Ended {
    let began = Instant::now();
    let mut tail = Tail::default();
    let why = match start(call) {
        Err(e) => Some(format!("it cannot be started: {}", said(&e))),
        Ok(mut started) => started.watch(call, began, cancel, &mut tail),
    };
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ended { ms, why, output: tail.text() }
}

fn said(e: &std::io::Error) -> String {
    match e.kind() {
        ErrorKind::NotFound => "there is no such program".into(),
        _ => e.to_string(),
    }
}

/// A program that runs.
struct Started {
    child: Child,
    group: Pid,
    output: PipeReader,
    input: Option<PipeWriter>,
}

fn start(call: &Call<'_>) -> std::io::Result<Started> {
    let [program, arguments @ ..] = call.command else { return Err(ErrorKind::InvalidInput.into()) };
    let (output, out) = std::io::pipe()?;
    let (fed, input) = std::io::pipe()?;
    for ours in [output.as_fd(), input.as_fd()] {
        let flags = rustix::fs::fcntl_getfl(ours)?;
        rustix::fs::fcntl_setfl(ours, flags | OFlags::NONBLOCK)?;
    }
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").process_group(0);
    command.stdin(Stdio::from(fed)).stdout(Stdio::from(out.try_clone()?)).stderr(Stdio::from(out));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(OWN_PREFIX.as_bytes()))
    {
        command.env_remove(name);
    }
    for name in OWN {
        command.env_remove(name);
    }
    command.envs(call.variables.iter().map(|(name, value)| (*name, value)));
    let child = command.spawn()?;
    let raw = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let group = raw.ok_or_else(|| std::io::Error::from(ErrorKind::InvalidData))?;
    Ok(Started { child, group, output, input: Some(input) })
}

impl Started {
    /// Waits for its end, or makes it; says why it failed.
    fn watch(&mut self, call: &Call<'_>, began: Instant, cancel: &Cancel, tail: &mut Tail) -> Option<String> {
        let mut left = call.input;
        let mut interrupted_at: Option<Instant> = None;
        loop {
            self.feed(&mut left);
            tail.take(&mut self.output);
            if self.over() {
                return failure(self.reap(tail));
            }
            if cancel.raised() {
                interrupted_at.get_or_insert_with(Instant::now);
            }
            if began.elapsed() >= call.timeout {
                self.end(tail);
                return Some(format!("it was ended after {} s", call.timeout.as_secs_f64()));
            }
            if interrupted_at.is_some_and(|at| at.elapsed() >= call.grace) {
                self.end(tail);
                return Some("it was ended by the interruption".into());
            }
            pause(began.elapsed() / 8);
        }
    }

    /// Hands on what the pipe takes now; at the end it is closed.
    fn feed(&mut self, left: &mut &[u8]) {
        let Some(pipe) = &mut self.input else { return };
        while !left.is_empty() {
            match pipe.write(left) {
                Ok(n) => *left = &left[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // It does not read any further, as it may.
                Err(_) => break,
            }
        }
        self.input = None;
    }

    /// Whether it has ended. It is not reaped: its number, and its group's, stay its own.
    fn over(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.group), options), Ok(None))
    }

    /// Asks the group to end, and makes it.
    fn end(&mut self, tail: &mut Tail) {
        if kill_process_group(self.group, Signal::TERM).is_err() {
            // It has left its group for another. It is not reaped, so the number is its own.
            let _ = kill_process(self.group, Signal::TERM);
        }
        let asked = Instant::now();
        while !self.over() && asked.elapsed() < TERM_TIME {
            tail.take(&mut self.output);
            pause(asked.elapsed() / 8);
        }
        // What ignores the request, or outlives its parent.
        let _ = kill_process_group(self.group, Signal::KILL);
        // It may have left its group: whoever waited for it then would wait without end.
        let _ = kill_process(self.group, Signal::KILL);
        drop(self.reap(tail));
    }

    fn reap(&mut self, tail: &mut Tail) -> std::io::Result<ExitStatus> {
        let status = self.child.wait();
        tail.take(&mut self.output);
        status
    }
}

fn pause(wanted: Duration) {
    // Nothing else ends the wait, so the answer says only that the time has passed.
    let _ = crossbeam_channel::after(wanted.clamp(Duration::from_millis(1), LOOK)).recv();
}

fn failure(status: std::io::Result<ExitStatus>) -> Option<String> {
    match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with exit code {code}"),
            (None, Some(signal)) => format!("signal {signal} ended it"),
            (None, None) => "it ended".into(),
        }),
        Err(e) => Some(format!("it cannot be waited for: {e}")),
    }
}

/// The end of what was printed.
#[derive(Default)]
struct Tail {
    kept: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    /// Takes what there is now.
    fn take(&mut self, pipe: &mut PipeReader) {
        let mut part = [0; 4096];
        // Bounded: a program that prints without end must still be looked at.
        for _ in 0..256 {
            match pipe.read(&mut part) {
                Ok(0) => return,
                Ok(n) => self.kept.extend(&part[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            let more = self.kept.len().saturating_sub(OUTPUT_BYTES_MAX);
            self.cut |= more > 0;
            self.kept.drain(..more);
        }
    }

    fn text(mut self) -> String {
        let text = String::from_utf8_lossy(self.kept.make_contiguous()).trim_end().to_owned();
        if self.cut { format!("…{text}") } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(script: &str, timeout: Duration, input: &[u8]) -> Ended {
        let command = ["sh", "-c", script].map(String::from);
        let variables = [("HOLDFAST_POLICY", String::from("home"))];
        run(&Call { command: &command, variables: &variables, input, timeout, grace: Duration::ZERO }, &Cancel::new())
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn it_is_run_fed_and_heard() {
        let done = call("cat | wc -c; echo $HOLDFAST_POLICY; pwd; echo error >&2", LONG, &vec![b'x'; 300_000]);
        assert_eq!((done.why, done.output.as_str()), (None, "300000\nhome\n/\nerror"));
        let deaf = call("exit 3", LONG, &vec![b'x'; 300_000]);
        assert_eq!(deaf.why.as_deref(), Some("it ended with exit code 3"));
        assert_eq!(call("kill -9 $$", LONG, b"").why.as_deref(), Some("signal 9 ended it"));
        let gone = run(
            &Call { command: &["/no/such".into()], variables: &[], input: b"", timeout: LONG, grace: LONG },
            &Cancel::new(),
        );
        assert!(gone.why.is_some_and(|why| why.contains("no such program")));
    }

    #[test]
    fn only_the_end_of_much_output_is_kept() {
        let done = call("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done", LONG, b"");
        assert!(done.output.ends_with("line 19999") && done.output.starts_with('…'), "{}", done.output);
        assert!(done.output.len() <= OUTPUT_BYTES_MAX + '…'.len_utf8());
    }

    #[test]
    fn what_takes_too_long_is_ended_with_all_that_it_started() {
        // One that ignores the request, and its child that does too.
        let began = Instant::now();
        let script = "trap '' TERM; (trap '' TERM; echo $$ inner; while :; do sleep 1; done) & echo begun; while :; do sleep 1; done";
        let done = call(script, Duration::from_millis(300), b"");
        assert!(done.why.is_some_and(|why| why.contains("ended after")), "{}", done.output);
        assert!(done.output.contains("begun") && began.elapsed() < Duration::from_secs(20));
        let group = done.output.split_whitespace().find_map(|word| word.parse::<i32>().ok()).and_then(Pid::from_raw);
        // The killed ones may be waited for by init a moment later.
        let gone = || kill_process_group(group.unwrap(), Signal::CONT).is_err();
        while !gone() && began.elapsed() < Duration::from_secs(25) {
            std::thread::yield_now();
        }
        assert!(gone());
    }

    #[test]
    fn what_leaves_its_group_is_ended_too() {
        let began = Instant::now();
        let script = "$SIG{TERM} = 'IGNORE'; setpgrp(0, getpgrp(getppid())); print 'left'; $| = 1; sleep 600";
        let command = ["perl", "-e", script].map(String::from);
        let timeout = Duration::from_millis(500);
        let call = Call { command: &command, variables: &[], input: b"", timeout, grace: Duration::ZERO };
        let done = run(&call, &Cancel::new());
        assert!(done.why.is_some_and(|why| why.contains("ended after")), "{}", done.output);
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }

    #[test]
    fn what_it_leaves_behind_is_not_waited_for() {
        let done = call("sleep 600 & echo $!", LONG, b"");
        assert!(done.why.is_none() && done.ms < 20_000);
        let left = done.output.parse().ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(left, Signal::KILL).unwrap();
    }

    #[test]
    fn an_interruption_ends_it_after_its_grace() {
        let cancel = Cancel::new();
        cancel.raise();
        let command = ["sleep".into(), "600".into()];
        let grace = Duration::from_millis(200);
        let ended = run(&Call { command: &command, variables: &[], input: b"", timeout: LONG, grace }, &cancel);
        assert!(
            ended.why.as_ref().is_some_and(|why| why.contains("interruption")) && (200..20_000).contains(&ended.ms),
            "{ended:?}"
        );
    }
}
