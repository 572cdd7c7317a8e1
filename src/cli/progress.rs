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
            let bar = terminal.then(|| new_bar(title));
            let every = if terminal { BAR_EVERY } else { LINE_EVERY };
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                match &bar {
                    Some(bar) => draw(bar, &progress),
                    None => remark(&plain(title, &progress, started)),
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
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

fn new_bar(title: &'static str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_message(title);
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {prefix}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn draw(bar: &ProgressBar, progress: &Progress) {
    let (done, expected) = (progress.bytes_done.get(), progress.bytes_expected.get());
    bar.set_length(expected.max(done));
    bar.set_position(done);
    let stored = progress.bytes_stored.get();
    let files = units::count(progress.files.get());
    let errors = progress.errors.get();
    let wrong = if errors > 0 { format!(", {errors} errors") } else { String::new() };
    let stored = if stored > 0 { format!(", {} stored", units::bytes(stored)) } else { String::new() };
    bar.set_prefix(format!("{files} files{stored}{wrong}"));
}

fn plain(title: &str, progress: &Progress, started: Instant) -> String {
    let done = progress.bytes_done.get();
    let seconds = started.elapsed().as_secs().max(1);
    format!(
        "{title}: {} files, {} done, {}/s, {} stored, {} errors",
        units::count(progress.files.get()),
        units::bytes(done),
        units::bytes(done / seconds),
        units::bytes(progress.bytes_stored.get()),
        progress.errors.get()
    )
}
