//! A stand-in for an S3 bucket that shows what no real server can be made to show at the right moment: keys that are no
//! paths, objects that change or go between two requests, sizes that are not true. It looks at no signature.

use crate::stores::http::{Head, answer, body, serve};
use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

const DATE: &str = "Sat, 28 Nov 2026 12:00:00 GMT";

/// What happens when a request comes.
pub enum Act {
    /// An object has other bytes from now on.
    Put(&'static str, Vec<u8>),
    /// It is gone.
    Remove(&'static str),
    /// The request is refused: status and code.
    Refuse(u16, &'static str),
    /// It is done, and the answer says that it failed.
    Lose,
}

#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Sizes that the listing says instead of the true ones.
    pub sizes: BTreeMap<Vec<u8>, u64>,
    /// Method, what the target has in it, how many such requests pass before, what happens then; each once.
    pub script: Vec<(&'static str, &'static str, usize, Act)>,
    /// Keys in a page; 0: a thousand.
    pub page: usize,
    /// Whether pages say that there is more, and not where, or always at the same place.
    pub lost: bool,
    pub circle: bool,
    /// Whether it takes every version for the one that was asked for.
    pub careless: bool,
    /// Whether listings, or answers that have an object's bytes, say no tags.
    pub no_tags_listed: bool,
    pub no_tags_given: bool,
    /// The tag of everything, instead of one for each content.
    pub tag: Option<&'static str>,
    /// What every object says of itself beside.
    pub meta: Option<String>,
    /// Whether it gives all where a part is asked for.
    pub no_ranges: bool,
    /// Nobody may read these.
    pub private: Vec<&'static str>,
    /// Parts of objects that are not made yet, and how many parts those have that were.
    pub uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    pub made: BTreeMap<Vec<u8>, usize>,
    /// Requests that came, as `METHOD target`.
    pub seen: Vec<String>,
}

/// A running one.
pub struct StandIn {
    pub port: u16,
    pub state: Arc<Mutex<State>>,
}

impl StandIn {
    pub fn start(objects: &[(&[u8], &[u8])]) -> StandIn {
        let objects = objects.iter().map(|(key, bytes)| (key.to_vec(), bytes.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { objects, ..State::default() }));
        let shared = Arc::clone(&state);
        StandIn { port: serve(move |connection| one(&shared, connection)), state }
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub fn url(&self, prefix: &str) -> String {
        format!("s3://bucket/{prefix}?endpoint=http://127.0.0.1:{}", self.port)
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32])
}

/// As Amazon writes keys in listings.
fn form(key: &[u8]) -> String {
    let one = |b: &u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => char::from(*b).to_string(),
        b' ' => "+".into(),
        b => format!("%{b:02X}"),
    };
    key.iter().map(one).collect()
}

fn one(shared: &Mutex<State>, connection: TcpStream) {
    let mut client = connection.try_clone().unwrap();
    let mut from = BufReader::new(connection);
    let Some(head) = Head::read(&mut from) else { return };
    let Some(content) = body(&mut from, head.content_length()) else { return };
    let mut state = shared.lock().unwrap();
    state.seen.push(format!("{} {}", head.method, head.target));
    for (method, part, before, _) in &mut state.script {
        if *method == head.method && head.target.contains(*part) {
            *before = before.wrapping_sub(1);
        }
    }
    let (due, waiting) =
        std::mem::take(&mut state.script).into_iter().partition(|(.., before, _)| *before == usize::MAX);
    state.script = waiting;
    let due: Vec<(&str, &str, usize, Act)> = due;
    for (.., act) in due {
        match act {
            Act::Lose => {
                let key = head.parts().0.trim_start_matches("/bucket/").as_bytes().to_vec();
                drop(upload(&mut state, &head, &key, content));
                return refuse(&mut client, &head, 500, "InternalError");
            }
            Act::Put(key, bytes) => drop(state.objects.insert(key.into(), bytes)),
            Act::Remove(key) => drop(state.objects.remove(key.as_bytes())),
            Act::Refuse(status, code) => return refuse(&mut client, &head, status, code),
        }
    }
    serve_one(&mut state, &head, content, &mut client);
}

fn refuse(client: &mut TcpStream, head: &Head, status: u16, code: &str) {
    let text = format!("<?xml version='1.0'?><Error><Code>{code}</Code></Error>");
    answer(client, status, &[], text.as_bytes(), head.method != "HEAD");
}

fn serve_one(state: &mut State, head: &Head, content: Vec<u8>, client: &mut TcpStream) {
    let (path, query) = head.parts();
    let Some(key) = path.strip_prefix("/bucket") else { return refuse(client, head, 404, "NoSuchBucket") };
    let asked = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    if asked("list-type").is_some() {
        let text = listing(state, &asked("prefix").unwrap_or_default(), asked("continuation-token"));
        return answer(client, 200, &[], text.as_bytes(), true);
    }
    let key = key.trim_start_matches('/').as_bytes().to_vec();
    if head.method == "POST" || asked("partNumber").is_some() {
        return match upload(state, head, &key, content) {
            Some((text, tag)) => answer(client, 200, &[("ETag", tag.as_str())], text.as_bytes(), true),
            None => refuse(client, head, 404, "NoSuchUpload"),
        };
    }
    if head.method == "DELETE" {
        asked("uploadId").iter().for_each(|id| drop(state.uploads.remove(id)));
        return answer(client, 204, &[], b"", false);
    }
    if head.method == "PUT" {
        state.objects.insert(key, content);
        return answer(client, 200, &[], b"", true);
    }
    let Some(bytes) = state.objects.get(&key) else { return refuse(client, head, 404, "NoSuchKey") };
    let tag = state.tag.map_or_else(|| etag(bytes), str::to_owned);
    let parts = |parts: &usize| format!("{}-{parts}\"", tag.trim_end_matches('"'));
    let tag = state.made.get(&key).map_or(tag.clone(), parts);
    if state.private.iter().any(|private| private.as_bytes() == key) {
        return refuse(client, head, 403, "AccessDenied");
    }
    if !state.careless && head.header("if-match").is_some_and(|wanted| wanted != tag) {
        return refuse(client, head, 412, "PreconditionFailed");
    }
    let mut headers = vec![("Last-Modified", DATE), ("Content-Type", "application/x-test")];
    headers.extend(state.meta.iter().map(|meta| ("x-amz-meta-more", meta.as_str())));
    if !state.no_tags_given || head.method != "GET" {
        headers.push(("ETag", tag.as_str()));
    }
    let headers = &headers[..];
    let range = head
        .header("range")
        .filter(|_| !state.no_ranges)
        .and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return answer(client, 200, headers, bytes, head.method != "HEAD") };
    let (first, last) = (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap().min(bytes.len() - 1));
    let range = format!("bytes {first}-{last}/{}", bytes.len());
    let headers = [headers, &[("Content-Range", range.as_str())]].concat();
    answer(client, 206, &headers, &bytes[first..=last], true);
}

/// A step of an object that is put in parts: body and tag of the answer; `None` if the upload is over.
fn upload(state: &mut State, head: &Head, key: &[u8], content: Vec<u8>) -> Option<(String, String)> {
    let (_, query) = head.parts();
    let asked = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let Some(id) = asked("uploadId") else {
        let id = format!("u{}", state.seen.len());
        state.uploads.insert(id.clone(), BTreeMap::new());
        return Some((format!("<UploadId>{id}</UploadId>"), String::new()));
    };
    let parts = state.uploads.get_mut(&id)?;
    if let Some(number) = asked("partNumber") {
        let tag = etag(&content);
        parts.insert(number.parse().unwrap(), content);
        return Some((String::new(), tag));
    }
    let parts = state.uploads.remove(&id)?;
    state.made.insert(key.to_vec(), parts.len());
    state.objects.insert(key.to_vec(), parts.into_values().flatten().collect());
    Some((String::new(), String::new()))
}

fn listing(state: &State, prefix: &str, token: Option<String>) -> String {
    let behind = token.clone().unwrap_or_default();
    let all = state.objects.iter().filter(|(key, _)| key.starts_with(prefix.as_bytes()) && form(key) > behind);
    let mut sorted: Vec<_> = all.collect();
    sorted.sort_by_key(|(key, _)| form(key));
    let page = if state.page == 0 { 1000 } else { state.page };
    let one = |(key, bytes): &(&Vec<u8>, &Vec<u8>)| {
        let size = state.sizes.get(*key).copied().unwrap_or(bytes.len() as u64);
        let tag = state.tag.map_or_else(|| etag(bytes), str::to_owned).replace('"', "&quot;");
        let tag = if state.no_tags_listed { String::new() } else { format!("<ETag>{tag}</ETag>") };
        format!(
            "<Contents><Key>{}</Key><LastModified>2026-11-28T12:00:00.000Z</LastModified>{tag}<Size>{size}</Size></Contents>",
            form(key)
        )
    };
    let text: String = sorted.iter().take(page).map(one).collect();
    let next = match (sorted.len() > page, state.circle) {
        (_, true) => format!("<NextContinuationToken>{}</NextContinuationToken>", token.unwrap_or_else(|| "a".into())),
        (true, false) if !state.lost => {
            format!("<NextContinuationToken>{}</NextContinuationToken>", form(sorted[page - 1].0))
        }
        _ => String::new(),
    };
    let more = sorted.len() > page || state.circle;
    format!(
        "<?xml version='1.0'?><ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>{next}{text}</ListBucketResult>"
    )
}
