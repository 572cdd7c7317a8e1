//! The rules of the house, each a function from scanned files to findings.

use super::lex::{Kind, Token};
use super::scan::{File, Target};
use std::collections::{BTreeMap, BTreeSet};

/// The rooms from the ground up (`docs/architecture.md`). A room imports only rooms before it, and itself.
pub const ROOMS: &[&str] = &[
    "error",
    "base",
    "model",
    "crypto",
    "chunk",
    "format",
    "policy",
    "store",
    "catalog",
    "unlock",
    "region",
    "repo",
    "source",
    "ops",
    "access",
    "drill",
    "dr",
    "mount",
    "telemetry",
    "daemon",
    "api",
    "cluster",
    "cli",
    "main",
];

/// Rooms that the order would allow to import, and that must not all the same.
const STRANGERS: &[(&str, &str)] = &[("source", "repo"), ("source", "region")];

/// Crates that live in certain rooms only.
pub const CRATES: &[(&str, &[&str])] = &[
    ("object_store", &["store"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("indicatif", &["cli"]),
    ("fastcdc", &["chunk"]),
    ("zstd", &["chunk"]),
    ("zstd_safe", &["chunk"]),
    ("aes_gcm", &["crypto"]),
    ("ring", &["crypto", "model"]),
    ("argon2", &["crypto"]),
    ("ed25519_dalek", &["crypto"]),
    ("x_wing", &["crypto"]),
    ("bech32", &["crypto"]),
    ("zxcvbn", &["crypto"]),
    ("granit_parser", &["policy"]),
    ("schemars", &["policy"]),
    ("cron", &["policy"]),
    ("chrono", &["policy"]),
    ("chrono_tz", &["policy"]),
    ("rusqlite", &["catalog"]),
    ("ureq", &["daemon"]),
    ("reqwest", &["store"]),
    ("http", &["store", "source"]),
    ("h2", &["source"]),
    ("tokio_rustls", &["source"]),
    ("sha2", &["source"]),
    ("http_body", &["store"]),
    ("async_trait", &["store"]),
    ("rustls", &["store", "source", "daemon"]),
    ("rustls_native_certs", &["store", "source", "daemon"]),
    ("miniz_oxide", &["model"]),
    ("rustls_pki_types", &["model"]),
    ("webpki", &["model"]),
    ("getrandom", &["base"]),
    ("libc", &["base"]),
];

/// Lines of the longest function.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Lines of the longest file.
pub const FILE_LINES_MAX: usize = 600;
/// Lines of `main.rs`.
pub const MAIN_LINES_MAX: usize = 40;

/// Rooms that print.
const PRINTERS: &[&str] = &["cli", "main"];
const PRINTING: &[&str] = &["println", "eprintln", "print", "eprint", "dbg"];
const PANICKING: &[&str] = &["panic", "todo", "unimplemented"];

/// The rooms that know typed keys as text: the format, whose signatures name them, and the store.
const KEY_ROOMS: &[&str] = &["format", "store"];
/// How object keys begin (docs/format.md, section 2).
const KEY_PREFIXES: &[&str] = &[
    "keys/",
    "config/",
    "packs/",
    "index/",
    "snapshots/",
    "sessions/",
    "forgotten/",
    "holds/",
    "epochs/",
    "runs/",
    "probe/",
    "quarantine/",
];
/// All findings, in the order of the rules, each once.
pub fn check(files: &[File]) -> Vec<String> {
    let rules = [layers, strangers, crates, keys, circles, lengths, module_docs, panics, prints, ignored];
    let mut seen = BTreeSet::new();
    rules.iter().flat_map(|rule| rule(files)).filter(|finding| seen.insert(finding.clone())).collect()
}

/// Marks files that are test modules of another file as test code.
pub fn mark_test_files(files: &mut [File]) {
    let roots: BTreeSet<Vec<String>> = files.iter().flat_map(|f| f.test_modules.clone()).collect();
    for file in files.iter_mut() {
        if roots.iter().any(|root| file.module.starts_with(root)) {
            file.mark_test();
        }
    }
}

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|r| *r == room)
}

/// Imports into other rooms: the file, the room it names, the line.
fn imports(files: &[File]) -> impl Iterator<Item = (&File, &str, usize)> {
    files.iter().flat_map(|file| {
        let other = move |room: &str| room != file.room() && file.room() != "lib";
        file.paths.iter().filter_map(move |path| match &path.target {
            Target::Inside(names) => {
                let room = names.first().map(String::as_str).filter(|r| other(r) && *r != "*")?;
                Some((file, room, path.line))
            }
            Target::Outside(_) => None,
        })
    })
}

fn layers(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| f.room() != "lib" && rank(f.room()).is_none()) {
        found.push(format!("{}: `{}` is no room of the table", file.path, file.room()));
    }
    for (file, room, line) in imports(files) {
        match (rank(file.room()), rank(room)) {
            (_, None) => found.push(format!("{}:{line}: `crate::{room}` is no room of the table", file.path)),
            (Some(own), Some(other)) if other > own => {
                found.push(format!(
                    "{}:{line}: `{}` must not import `{room}`, which is above it",
                    file.path,
                    file.room()
                ));
            }
            _ => {}
        }
    }
    found
}

fn strangers(files: &[File]) -> Vec<String> {
    imports(files)
        .filter(|(file, room, _)| STRANGERS.contains(&(file.room(), room)))
        .map(|(file, room, line)| format!("{}:{line}: `{}` must know no `{room}`", file.path, file.room()))
        .collect()
}

fn crates(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for path in &file.paths {
            let Target::Outside(name) = &path.target else { continue };
            let Some((_, homes)) = CRATES.iter().find(|(c, _)| c == name) else { continue };
            if !homes.contains(&file.room()) {
                found.push(format!("{}:{}: crate `{name}` belongs to {}", file.path, path.line, homes.join(", ")));
            }
        }
    }
    found
}

/// An object key is a type, and a text in two rooms only.
fn keys(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| !KEY_ROOMS.contains(&f.room())) {
        for (token, _) in shipped(file) {
            let Kind::Str(text) = &token.kind else { continue };
            if KEY_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
                found.push(format!(
                    "{}:{}: object key {text:?} as a text outside {}",
                    file.path,
                    token.line,
                    KEY_ROOMS.join(", ")
                ));
            }
        }
    }
    found
}

/// Circles among rooms, among the modules of one room, and among the files of one folder; a module's root and what
/// lies below it may name each other. Test code may look where it likes.
fn circles(files: &[File]) -> Vec<String> {
    let names: BTreeSet<&[String]> = files.iter().map(|f| node(&f.module)).collect();
    let whole: BTreeSet<&[String]> = files.iter().map(|f| &f.module[..]).collect();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut edge = |from: &[String], to: &[String]| {
        if from != to && !from.is_empty() && !to.is_empty() {
            graph.entry(from.join("::")).or_default().insert(to.join("::"));
        }
    };
    for file in files.iter().filter(|f| f.room() != "lib") {
        for path in file.paths.iter().filter(|p| !p.test) {
            let Target::Inside(target) = &path.target else { continue };
            if target.first().map(String::as_str) != Some(file.room()) {
                edge(&file.module[..1], &target[..target.len().min(1)]);
            } else if file.module.len() > 1 && target.len() > 1 && names.contains(node(target)) {
                edge(node(&file.module), node(target));
            }
            // The file that defines what is named: the longest part of the path that is a module.
            let file_of = (2..=target.len()).rev().map(|len| &target[..len]).find(|part| whole.contains(part));
            if let Some(to) = file_of.filter(|to| !to.starts_with(&file.module) && !file.module.starts_with(to)) {
                edge(&file.module, to);
            }
        }
    }
    graph.keys().filter_map(|start| circle(&graph, start)).collect()
}

/// A module as a node of the graph: its room and the first name below.
fn node(module: &[String]) -> &[String] {
    &module[..module.len().min(2)]
}

/// A circle in which `start` is the smallest name, so that each is reported once.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<String> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = vec![start];
    while let Some(at) = queue.pop() {
        for next in graph.get(at).into_iter().flatten().map(String::as_str) {
            if next == start {
                let mut way = vec![start, at];
                while let Some(before) = came_from.get(way[way.len() - 1]) {
                    way.push(before);
                }
                way.reverse();
                way.dedup();
                return Some(format!("circle of imports: {}", way.join(" -> ")));
            }
            if next > start && !came_from.contains_key(next) {
                came_from.insert(next, at);
                queue.push(next);
            }
        }
    }
    None
}

fn lengths(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        let limit = if file.path == "main.rs" { MAIN_LINES_MAX } else { FILE_LINES_MAX };
        if lines > limit {
            found.push(format!("{}: {lines} lines, limit {limit}", file.path));
        }
        for f in file.functions.iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
            found.push(format!(
                "{}:{}: `{}` has {} lines, limit {FUNCTION_LINES_MAX}",
                file.path, f.line, f.name, f.lines
            ));
        }
    }
    found
}

fn module_docs(files: &[File]) -> Vec<String> {
    let without =
        |f: &&File| f.text.lines().next().is_none_or(|l| l.strip_prefix("//!").is_none_or(|doc| doc.trim().is_empty()));
    files.iter().filter(without).map(|f| format!("{}: does not begin with a module doc (`//!`)", f.path)).collect()
}

/// Tokens of `file` that are not test code, each with the one after it.
fn shipped(file: &File) -> impl Iterator<Item = (&Token, Option<&Token>)> {
    (0..file.tokens.len()).filter(|&i| !file.test[i]).map(|i| (&file.tokens[i], file.tokens.get(i + 1)))
}

fn is_macro(token: &Token, next: Option<&Token>, names: &[&str]) -> bool {
    token.ident().is_some_and(|name| names.contains(&name)) && next.is_some_and(|t| t.is('!'))
}

fn panics(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for i in (0..file.tokens.len()).filter(|&i| !file.test[i]) {
            let (token, next) = (&file.tokens[i], file.tokens.get(i + 1));
            let called = i > 0 && (file.tokens[i - 1].is('.') || file.tokens[i - 1].is(':'));
            // The one that panics has a message; without any argument it is a method of somebody else.
            let bare = next.is_some_and(|t| t.is('(')) && file.tokens.get(i + 2).is_some_and(|t| t.is(')'));
            let method = called && (token.ident() == Some("unwrap") || (token.ident() == Some("expect") && !bare));
            if method || is_macro(token, next, PANICKING) {
                let name = token.ident().unwrap_or_default();
                found.push(format!("{}:{}: `{name}` outside tests", file.path, token.line));
            }
        }
    }
    found
}

fn prints(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|f| !PRINTERS.contains(&f.room())) {
        for (token, next) in shipped(file) {
            if is_macro(token, next, PRINTING) {
                found.push(format!("{}:{}: only `cli` prints", file.path, token.line));
            }
        }
    }
    found
}

/// A test that is not run is no test.
pub fn ignored(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (i, token) in file.tokens.iter().enumerate().filter(|(_, t)| t.ident() == Some("ignore")) {
            let attribute = i >= 2 && file.tokens[i - 1].is('[') && file.tokens[i - 2].is('#');
            let conditional =
                file.tokens[..i].iter().rev().take_while(|t| !t.is('#')).any(|t| t.ident() == Some("cfg_attr"));
            if attribute || (conditional && file.tokens[i - 1].is(',')) {
                found.push(format!("{}:{}: ignored test", file.path, token.line));
            }
        }
    }
    found
}
