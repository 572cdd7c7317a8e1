//! A proxy before a member, which breaks off or falsifies what the member says.

use super::server::wait_a_little;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long the member may be silent behind a bit that was changed: who waits for what never comes is set free.
const SILENCE: Duration = Duration::from_millis(300);

/// What is done to the bytes that a member sends, counted from the connection's first.
#[derive(Debug, Clone, Copy)]
pub enum Harm {
    None,
    /// The connection ends before this byte.
    Cut(usize),
    /// This bit of this byte is another one, or of the next at which anybody looks.
    Flip(usize, u32),
    /// What comes from this byte on waits, until there is another harm, or none.
    Hold(usize),
}

pub struct Proxy {
    pub port: u16,
    harm: Arc<Mutex<Harm>>,
    /// Bytes of the connection on which the member said most.
    most: Arc<AtomicU64>,
    /// Connections that were cut.
    cuts: Arc<AtomicU64>,
    /// Connections on which something waits.
    held: Arc<AtomicU64>,
}

impl Proxy {
    pub fn before(member: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, harm) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Harm::None)));
        let most = Arc::new(AtomicU64::new(0));
        let (cuts, held) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (shared, counted) = (Arc::clone(&harm), Arc::clone(&most));
        let counters = (Arc::clone(&cuts), Arc::clone(&held));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", member))) else { continue };
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    _ = std::io::copy(&mut from, &mut to);
                    _ = to.shutdown(Shutdown::Both);
                });
                let (counted, shared, counters) = (Arc::clone(&counted), Arc::clone(&shared), counters.clone());
                let harm = *shared.lock().unwrap();
                std::thread::spawn(move || {
                    let told = Told { harm, shared: &shared, cuts: &counters.0, held: &counters.1 };
                    counted.fetch_max(answers(&server, &client, &told), Ordering::SeqCst)
                });
            }
        });
        Proxy { port, harm, most, cuts, held }
    }

    /// How much a member said on one connection that has ended, at most; until there is one.
    pub fn sent_most(&self) -> u64 {
        loop {
            match self.most.load(Ordering::SeqCst) {
                0 => wait_a_little(),
                most => return most,
            }
        }
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }

    /// Whether something waits here, or did.
    pub fn has_held(&self) -> bool {
        self.held.load(Ordering::SeqCst) > 0
    }

    /// Waits until something waits here.
    pub fn wait_until_held(&self) {
        while !self.has_held() {
            wait_a_little();
        }
    }

    /// Begins to count anew.
    pub fn forget(&self) {
        self.most.store(0, Ordering::SeqCst);
    }

    pub fn harm(&self, harm: Harm) {
        *self.harm.lock().unwrap() = harm;
    }
}

/// What is done to a connection, and where it is counted.
struct Told<'p> {
    harm: Harm,
    shared: &'p Mutex<Harm>,
    cuts: &'p AtomicU64,
    held: &'p AtomicU64,
}

impl Told<'_> {
    /// Waits until there is another harm, or none.
    fn hold(&self) {
        self.held.fetch_add(1, Ordering::SeqCst);
        while matches!(*self.shared.lock().unwrap(), Harm::Hold(_)) {
            wait_a_little();
        }
    }
}

/// Where in a record of TLS the next byte is: one of type, two of version, two of length, and what these say.
#[derive(Default)]
struct Record {
    place: usize,
    length: usize,
}

impl Record {
    /// Takes the next byte, and says whether it is one of the version, at which nobody may look (RFC 8446, 5.1): who changes
    /// it changes nothing.
    fn is_version(&mut self, byte: u8) -> bool {
        let place = self.place;
        match place {
            3 => self.length = usize::from(byte) << 8,
            4 => self.length |= usize::from(byte),
            _ => {}
        }
        self.place = if place >= 4 && place == 4 + self.length { 0 } else { place + 1 };
        matches!(place, 1 | 2)
    }
}

fn answers(mut server: &TcpStream, mut client: &TcpStream, told: &Told<'_>) -> u64 {
    let (mut at, mut block) = (0, vec![0; 16 << 10]);
    let (mut record, mut flipped) = (Record::default(), false);
    while let Ok(len) = server.read(&mut block) {
        let Some(part) = block.get_mut(..len).filter(|part| !part.is_empty()) else { break };
        let mut send = part.len();
        let counts: Vec<bool> = part.iter().map(|byte| !record.is_version(*byte)).collect();
        match told.harm {
            Harm::Hold(place) if at + len > place => told.hold(),
            Harm::Cut(place) => send = send.min(place.saturating_sub(at)),
            Harm::Flip(place, bit) if !flipped && at + len > place => {
                if let Some(n) = (place.saturating_sub(at)..len).find(|n| counts[*n]) {
                    part[n] ^= 1 << bit;
                    flipped = true;
                    server.set_read_timeout(Some(SILENCE)).unwrap();
                }
            }
            _ => {}
        }
        let is_cut = send < len;
        told.cuts.fetch_add(u64::from(is_cut), Ordering::SeqCst);
        if client.write_all(&part[..send]).is_err() || is_cut {
            break;
        }
        at += len;
    }
    _ = client.shutdown(Shutdown::Both);
    _ = server.shutdown(Shutdown::Both);
    at as u64
}
