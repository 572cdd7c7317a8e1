//! A stand-in for Google Cloud Storage, for no emulator speaks the requests that are made of it: its XML interface as far
//! as regions use it, from its documentation. It proves the shape of requests and answers, and nothing about Google.

use super::http::{Head, answer, body, serve};
use holdfast::base::{Env, TimeMs};
use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

/// Keys in a page.
const PAGE: usize = 1000;
const DATE: &str = "Sat, 28 Nov 2026 12:00:00 GMT";

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Starts it; its port. It has one bucket, `bucket`; of another, `private`, it answers that the credentials are unknown.
pub fn start() -> u16 {
    start_at(None)
}

/// The same, without looking whether something is there before it puts.
pub fn start_careless() -> u16 {
    let objects = Objects::default();
    serve(move |connection| one(&objects, ("", true), connection))
}

/// The same, with a clock that is so far ahead, ms; without one it does not say what time it is.
pub fn start_at(ahead_ms: Option<i64>) -> u16 {
    let objects = Objects::default();
    serve(move |connection| one(&objects, (&ahead_ms.map(http_date).unwrap_or_default(), false), connection))
}

/// The time, as HTTP has it; whoever reads it knows the day of the week.
fn http_date(ahead_ms: i64) -> String {
    let text = TimeMs(Env::system().now().0 + ahead_ms).rfc3339();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[text[5..7].parse::<usize>().unwrap() - 1];
    format!("Mon, {} {month} {} {} GMT", &text[8..10], &text[..4], &text[11..19])
}

fn one(objects: &Objects, (date, careless): (&str, bool), connection: TcpStream) {
    let mut client = connection.try_clone().unwrap();
    let mut from = BufReader::new(connection);
    let Some(head) = Head::read(&mut from) else { return };
    let Some(content) = body(&mut from, head.content_length()) else { return };
    let (path, query) = head.parts();
    let no = |client: &mut TcpStream, status, code: &str| {
        let text = format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>");
        answer(client, status, &[("Content-Type", "application/xml")], text.as_bytes(), head.method != "HEAD");
    };
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    match bucket {
        _ if head.header("authorization").is_none_or(|token| !token.starts_with("Bearer ")) => {
            return no(&mut client, 401, "AuthenticationRequired");
        }
        "private" => return no(&mut client, 401, "AuthenticationRequired"),
        "bucket" => {}
        _ => return no(&mut client, 404, "NoSuchBucket"),
    }
    let mut all = objects.lock().unwrap();
    let tags = [("ETag", "\"1\""), ("x-goog-generation", "1"), ("Last-Modified", DATE), ("Date", date)];
    match head.method.as_str() {
        "GET" if key.is_empty() => {
            answer(&mut client, 200, &[("Content-Type", "application/xml")], listing(&all, &query).as_bytes(), true);
        }
        "PUT" if !careless && head.header("x-goog-if-generation-match") == Some("0") && all.contains_key(key) => {
            no(&mut client, 412, "PreconditionFailed");
        }
        "PUT" => {
            all.insert(key.to_owned(), content);
            answer(&mut client, 200, &tags, b"", true);
        }
        "DELETE" if all.remove(key).is_some() => answer(&mut client, 204, &[], b"", false),
        "GET" | "HEAD" => match all.get(key) {
            None => no(&mut client, 404, "NoSuchKey"),
            Some(bytes) => match range(&head, bytes.len()) {
                None => answer(&mut client, 200, &tags, bytes, head.method == "GET"),
                Some((begin, end)) if begin < bytes.len() => {
                    let end = end.min(bytes.len());
                    let range = format!("bytes {begin}-{}/{}", end - 1, bytes.len());
                    let headers = [&tags[..], &[("Content-Range", range.as_str())]].concat();
                    answer(&mut client, 206, &headers, &bytes[begin..end], true);
                }
                Some(_) => no(&mut client, 416, "InvalidRange"),
            },
        },
        _ => no(&mut client, 404, "NoSuchKey"),
    }
}

fn range(head: &Head, len: usize) -> Option<(usize, usize)> {
    let (begin, end) = head.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((begin.parse().ok()?, end.parse::<usize>().map_or(len, |end| end + 1)))
}

fn listing(all: &BTreeMap<String, Vec<u8>>, query: &[(String, String)]) -> String {
    let of = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()).unwrap_or_default();
    let (prefix, behind) = (of("prefix"), of("continuation-token").max(of("start-after")));
    let mut text = "<?xml version='1.0'?><ListBucketResult>".to_owned();
    let fits = all.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > behind);
    if of("delimiter") == "/" {
        let folders: std::collections::BTreeSet<_> =
            fits.filter_map(|(key, _)| key[prefix.len()..].split_once('/').map(|(folder, _)| folder)).collect();
        for folder in folders {
            text.push_str(&format!("<CommonPrefixes><Prefix>{prefix}{folder}/</Prefix></CommonPrefixes>"));
        }
        return text + "</ListBucketResult>";
    }
    let page: Vec<_> = fits.take(PAGE + 1).collect();
    for (key, bytes) in page.iter().take(PAGE) {
        text.push_str(&format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-11-28T12:00:00Z</LastModified><ETag>\"1\"</ETag></Contents>",
            bytes.len()
        ));
    }
    if page.len() > PAGE {
        text.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", page[PAGE - 1].0));
    }
    text + "</ListBucketResult>"
}
