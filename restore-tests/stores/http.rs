//! As much of HTTP/1.1 as the stand-ins need: heads, and bodies of a known length.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// A request without its body.
#[derive(Debug, Clone)]
pub struct Head {
    pub method: String,
    pub target: String,
    /// Name in lower case, value.
    pub headers: Vec<(String, String)>,
    /// As it came, with the empty line.
    pub text: String,
}

impl Head {
    /// Reads one; `None` at the end of the connection.
    pub fn read(from: &mut BufReader<TcpStream>) -> Option<Head> {
        let mut text = String::new();
        loop {
            let before = text.len();
            if from.read_line(&mut text).ok()? == 0 {
                return None;
            }
            if text.len() - before <= 2 {
                break;
            }
        }
        let mut lines = text.lines();
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(n, v)| (n.trim().to_lowercase(), v.trim().to_owned())).collect();
        Some(Head { method, target, headers, text })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn content_length(&self) -> usize {
        self.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Path and query, with `%xx` read.
    pub fn parts(&self) -> (String, Vec<(String, String)>) {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        (unescaped(path), pairs.map(|(n, v)| (unescaped(n), unescaped(v))).collect())
    }
}

fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
            rest = &tail[2..];
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Answers once, and says that the connection ends.
pub fn answer(to: &mut TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8], with_body: bool) {
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text.push_str("\r\n");
    // Who hung up is told nothing.
    let _ = to.write_all(text.as_bytes());
    if with_body {
        let _ = to.write_all(body);
    }
    let _ = to.flush();
}

/// Reads a body of a known length.
pub fn body(from: &mut BufReader<TcpStream>, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Serves each connection on a thread of its own; the port. It listens as long as the process lives.
pub fn serve(one: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let one = Arc::new(one);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let one = Arc::clone(&one);
            std::thread::spawn(move || one(connection));
        }
    });
    port
}

/// Answers every request alike until the tests end; its port.
pub fn always(body: impl Fn(&Head) -> Vec<u8> + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let mut from = BufReader::new(connection.try_clone().unwrap());
            let (Some(head), mut to) = (Head::read(&mut from), connection) else { continue };
            answer(&mut to, 200, &[], &body(&head), true);
        }
    });
    port
}
