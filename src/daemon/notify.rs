//! What the service manager is told, by the protocol of `sd_notify`: a datagram of lines to the socket that it named.
//! Telling is best effort; without a socket nothing is told.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A manager that does not read must not stop the loop.
const SEND_TIME_MAX: Duration = Duration::from_millis(500);

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog_ms: Option<i64>,
    fed: Option<i64>,
    status: String,
}

impl Notify {
    /// As the environment says.
    pub fn from_env() -> Notify {
        let to = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_write_timeout(Some(SEND_TIME_MAX)).ok()?;
            Some((socket, address.ok()?))
        });
        let number = |name: &str| std::env::var(name).ok()?.parse::<i64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == i64::from(std::process::id()));
        let watchdog_ms = number("WATCHDOG_USEC").filter(|us| ours && *us > 0).map(|us| (us / 1000).max(2));
        Notify { to, watchdog_ms, fed: None, status: String::new() }
    }

    fn send(&self, text: &str) {
        if let Some((socket, to)) = &self.to {
            // A manager that does not listen changes nothing here.
            let _ = socket.send_to_addr(text.as_bytes(), to);
        }
    }

    /// It works, and what is said stands in its status.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// It reads its configuration; [`Notify::ready`] is to follow.
    pub fn reloading(&self) {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// It comes to its end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The loop turns: feeds the watchdog when half of its time is over, and tells a status that is new.
    pub fn turn(&mut self, steady: i64, status: String) {
        if status != self.status {
            self.send(&format!("STATUS={status}"));
            self.status = status;
        }
        if self.watchdog_ms.is_some_and(|ms| self.fed.is_none_or(|fed| steady - fed >= ms / 2)) {
            self.send("WATCHDOG=1");
            self.fed = Some(steady);
        }
    }

    /// How long a turn may wait.
    pub fn wait_max_ms(&self) -> i64 {
        self.watchdog_ms.map_or(i64::MAX, |ms| (ms / 4).max(1))
    }
}
