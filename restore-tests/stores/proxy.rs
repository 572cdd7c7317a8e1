//! A proxy in front of a store that spoils what it is told to spoil: the first requests that fit, or all.

use super::http::{Head, answer};
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is refused: status, `Retry-After`.
    Refuse(u16, Option<u64>),
    /// The connection ends after so many bytes of its body came.
    CutRequest(usize),
    /// It is carried out, and the answer ends after so many bytes of its body.
    CutAnswer(usize),
    /// It is carried out, and nothing comes back.
    Hang,
    /// The answer is whole, says so, and has only so many bytes.
    ShortBody(usize),
}

#[derive(Default)]
struct State {
    /// Method, what the target must contain, what happens: each once, in this order.
    script: Vec<(&'static str, &'static str, Fault)>,
    /// Requests of this method of what the target contains, until the proxy is dead.
    kill_after: Option<(&'static str, &'static str, usize)>,
    /// How long each request is held up on its way to the store, and each answer on its way back.
    delay: (Duration, Duration),
}

/// The proxy.
pub struct Proxy {
    pub port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    port: u16,
    upstream: u16,
    state: Mutex<State>,
    life: (Mutex<Life>, Condvar),
    /// Held by requests that hang, until the proxy is dropped.
    over: (Mutex<bool>, Condvar),
}

impl Proxy {
    pub fn before(upstream: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Inner {
            port,
            upstream,
            state: Mutex::default(),
            life: (Mutex::new(Life::Up), Condvar::new()),
            over: (Mutex::new(false), Condvar::new()),
        });
        let shared = Arc::clone(&inner);
        std::thread::spawn(move || shared.listen(listener));
        Proxy { port, inner }
    }

    /// The next request of this method whose target contains `part` meets this, once.
    pub fn spoil(&self, method: &'static str, part: &'static str, fault: Fault) {
        self.inner.state.lock().unwrap().script.push((method, part, fault));
    }

    /// From now on every connection is refused, and those that are there are cut.
    pub fn kill(&self) {
        self.inner.kill();
    }

    /// Lets them in again; returns when it does.
    pub fn revive(&self) {
        let (life, changed) = &self.inner.life;
        *life.lock().unwrap() = Life::Wanted;
        changed.notify_all();
        drop(changed.wait_while(life.lock().unwrap(), |life| *life != Life::Up).unwrap());
    }

    /// The same in the middle of the next request of this method but so many whose target contains `part`.
    pub fn kill_after(&self, method: &'static str, part: &'static str, requests: usize) {
        self.inner.state.lock().unwrap().kill_after = Some((method, part, requests));
    }

    /// From now on every request is held up for so long on its way to the store, and its answer on the way back.
    pub fn delay(&self, there: Duration, back: Duration) {
        self.inner.state.lock().unwrap().delay = (there, back);
    }

    /// Faults that nothing has met yet.
    pub fn left(&self) -> usize {
        self.inner.state.lock().unwrap().script.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        *self.inner.over.0.lock().unwrap() = true;
        self.inner.over.1.notify_all();
    }
}

/// Whether the proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Up,
    /// It is about to stop.
    Doomed,
    Down,
    /// It is about to begin again.
    Wanted,
}

impl Inner {
    fn is_dead(&self) -> bool {
        *self.life.0.lock().unwrap() != Life::Up
    }

    /// Returns when nobody listens any more.
    fn kill(&self) {
        let (life, changed) = &self.life;
        *life.lock().unwrap() = Life::Doomed;
        // Wakes the listener up.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        drop(changed.wait_while(life.lock().unwrap(), |life| *life == Life::Doomed).unwrap());
    }

    fn listen(self: Arc<Inner>, mut listener: TcpListener) {
        let (life, changed) = &self.life;
        loop {
            let Ok((connection, _)) = listener.accept() else { continue };
            if !self.is_dead() {
                let shared = Arc::clone(&self);
                std::thread::spawn(move || shared.one(connection));
                continue;
            }
            drop((connection, listener));
            *life.lock().unwrap() = Life::Down;
            changed.notify_all();
            drop(changed.wait_while(life.lock().unwrap(), |life| *life != Life::Wanted).unwrap());
            listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
            *life.lock().unwrap() = Life::Up;
            changed.notify_all();
        }
    }

    fn one(&self, connection: TcpStream) {
        let mut client = connection.try_clone().unwrap();
        let mut from = BufReader::new(connection);
        let Some(head) = Head::read(&mut from) else { return };
        self.hold_up(|(there, _)| there);
        let fault = self.fault(&head);
        if let Some(Fault::Refuse(status, after)) = fault {
            let mut rest = from.by_ref().take(head.content_length() as u64);
            let _ = std::io::copy(&mut rest, &mut std::io::sink());
            let after = after.map(|s| s.to_string()).unwrap_or_default();
            let headers = [("Retry-After", after.as_str())];
            let headers = if after.is_empty() { &headers[..0] } else { &headers[..] };
            return answer(&mut client, status, headers, b"", true);
        }
        self.forward(&mut client, &mut from, &head, fault.as_ref());
        let _ = client.shutdown(Shutdown::Both);
    }

    /// A slow way is a fault like others: it takes time.
    fn hold_up(&self, side: impl Fn((Duration, Duration)) -> Duration) {
        let delay = side(self.state.lock().unwrap().delay);
        let (over, changed) = &self.over;
        drop(changed.wait_timeout_while(over.lock().unwrap(), delay, |over| !*over).unwrap());
    }

    fn fault(&self, head: &Head) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        if let Some((method, part, left)) = &mut state.kill_after
            && head.method == *method
            && head.target.contains(*part)
        {
            if *left == 0 {
                state.kill_after = None;
                drop(state);
                self.kill();
                return Some(Fault::CutRequest(1000));
            }
            *left -= 1;
        }
        let fits = |(method, part, _): &(&str, &str, Fault)| *method == head.method && head.target.contains(part);
        let ix = state.script.iter().position(fits)?;
        Some(state.script.remove(ix).2)
    }

    fn forward(
        &self,
        client: &mut TcpStream,
        from: &mut BufReader<TcpStream>,
        head: &Head,
        fault: Option<&Fault>,
    ) -> Option<()> {
        let mut store = TcpStream::connect(("127.0.0.1", self.upstream)).ok()?;
        let len = head.content_length();
        let bytes = match fault {
            Some(Fault::CutRequest(bytes)) => (*bytes).min(len),
            _ => len,
        };
        // One request a connection, so that the end of the answer is its end.
        let text = head.text.trim_end();
        write!(store, "{text}\r\nConnection: close\r\n\r\n").ok()?;
        std::io::copy(&mut from.by_ref().take(bytes as u64), &mut store).ok()?;
        if bytes < len {
            return None;
        }
        self.hold_up(|(_, back)| back);
        let Some(fault) = fault else { return self.pass(client, &mut store) };
        let mut answer = Vec::new();
        store.read_to_end(&mut answer).ok()?;
        let body = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let end = |bytes: usize| (body + bytes).min(answer.len());
        match fault {
            Fault::Hang => {
                let (over, changed) = &self.over;
                let _held = changed.wait_while(over.lock().unwrap(), |over| !*over).unwrap();
            }
            // Of an answer without a body, a part of its head.
            Fault::CutAnswer(0) => client.write_all(&answer[..body / 2]).ok()?,
            Fault::CutAnswer(bytes) => client.write_all(&answer[..end(*bytes)]).ok()?,
            Fault::ShortBody(bytes) => {
                let text = String::from_utf8_lossy(&answer[..body]).into_owned();
                let lines = text.lines().filter(|line| !line.to_lowercase().starts_with("content-length"));
                let kept = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\r\n");
                write!(client, "{kept}\r\nContent-Length: {bytes}\r\n\r\n").ok()?;
                client.write_all(&answer[body..end(*bytes)]).ok()?;
            }
            Fault::Refuse(..) | Fault::CutRequest(_) => {}
        }
        Some(())
    }

    /// Passes an answer on, piece by piece.
    fn pass(&self, client: &mut TcpStream, store: &mut TcpStream) -> Option<()> {
        let mut piece = vec![0; 64 << 10];
        loop {
            let n = store.read(&mut piece).ok()?;
            if n == 0 || self.is_dead() {
                return Some(());
            }
            client.write_all(&piece[..n]).ok()?;
        }
    }
}
