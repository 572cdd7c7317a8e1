//! Progress on standard error: a bar on a terminal, a line now and then elsewhere.

use super::output::remark;
use crate::base::{Progress, units};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at the counters on a terminal.
const BAR_EVERY: Duration = Duration::from_millis(150);
/// Between two lines elsewhere.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows progress until dropped.
pub struct Shown {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    started: Instant,
}

impl Shown {
    /// Begins to show `progress` under a title, unless quiet.
    pub fn start(title: &'static str, progress: &Arc<Progress>, quiet: bool) -> Shown {
        let started = Instant::now();
        if quiet {
            return Shown { stop: None, thread: None, started };
        }
        let (stop, stopped) = bounded::<()>(0);
        let progress = Arc::clone(progress);
        let terminal = std::io::stderr().is_terminal();
        let thread = std::thread::spawn(move || {
            let mut bar = terminal.then(|| Bar::new(title));
            let every = if terminal { BAR_EVERY } else { LINE_EVERY };
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                match &mut bar {
                    Some(bar) => bar.draw(&progress),
                    None => remark(&plain(title, &progress, started)),
                }
            }
            if let Some(bar) = bar {
                bar.bar.finish_and_clear();
            }
        });
        Shown { stop: Some(stop), thread: Some(thread), started }
    }

    /// Milliseconds since the start.
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already.
            let _ = thread.join();
        }
    }
}

/// What is said last on the line is cut where a terminal is narrow.
const KNOWN: &str = "{prefix} {bar:16} {percent:>3}% {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {wide_msg}";
/// How much there is to do is not known: no end is promised.
const UNKNOWN: &str = "{prefix} {spinner} {bytes} {bytes_per_sec} {elapsed} {wide_msg}";

struct Bar {
    bar: ProgressBar,
    /// What it looks like now.
    known: Option<bool>,
}

impl Bar {
    fn new(title: &'static str) -> Bar {
        // What is set on a bar later is drawn at once, in a style that it has not got yet.
        let bar = ProgressBar::no_length().with_prefix(title);
        match ProgressStyle::with_template(UNKNOWN) {
            Ok(style) => Bar { bar: bar.with_style(style), known: Some(false) },
            Err(_) => Bar { bar, known: None },
        }
    }

    fn draw(&mut self, progress: &Progress) {
        let (done, expected) = (progress.bytes_done.get(), progress.bytes_expected.get());
        let known = expected > done;
        if self.known != Some(known)
            && let Ok(style) = ProgressStyle::with_template(if known { KNOWN } else { UNKNOWN })
        {
            self.bar.set_style(style);
            self.known = Some(known);
        }
        if known {
            self.bar.set_length(expected)
        } else {
            self.bar.unset_length()
        }
        self.bar.set_position(done);
        self.bar.set_message(counts(progress));
        self.bar.tick();
    }
}

fn counts(progress: &Progress) -> String {
    let (files, stored, errors) = (progress.files.get(), progress.bytes_stored.get(), progress.errors.get());
    let objects = progress.objects.get();
    let parts = [
        (objects > 0).then(|| format!("{} objects", units::count(objects))),
        (files > 0).then(|| format!("{} files", units::count(files))),
        (stored > 0).then(|| format!("{} stored", units::bytes(stored))),
        (errors > 0).then(|| format!("{errors} errors")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn plain(title: &str, progress: &Progress, started: Instant) -> String {
    let done = progress.bytes_done.get();
    let seconds = started.elapsed().as_secs().max(1);
    let objects = progress.objects.get();
    if objects > 0 {
        let (done, rate) = (units::bytes(done), units::bytes(done / seconds));
        let expected = units::bytes(progress.bytes_expected.get());
        return format!("{title}: {} objects, {done} of {expected}, {rate}/s", units::count(objects));
    }
    format!(
        "{title}: {} files, {} done, {}/s, {} stored, {} errors",
        units::count(progress.files.get()),
        units::bytes(done),
        units::bytes(done / seconds),
        units::bytes(progress.bytes_stored.get()),
        progress.errors.get()
    )
}
