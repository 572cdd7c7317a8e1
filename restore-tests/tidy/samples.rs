//! The checker is checked: small bad samples that each rule must find, and good ones that none may.

use super::lex::{Kind, lex};
use super::rules::{check, mark_test_files};
use super::scan::{File, Target};

fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let mut files: Vec<File> =
        files.iter().map(|(path, text)| File::scan(path, &format!("//! Doc.\n{text}"))).collect();
    mark_test_files(&mut files);
    check(&files)
}

/// Exactly one finding, which holds `part`.
#[track_caller]
fn finds(part: &str, files: &[(&str, &str)]) {
    let found = findings(files);
    assert!(found.len() == 1 && found[0].contains(part), "wanted one with {part:?}, got {found:#?}");
}

#[track_caller]
fn finds_nothing(files: &[(&str, &str)]) {
    let found = findings(files);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn an_import_from_above() {
    finds("base/x.rs:2: `base` must not import `store`", &[("base/x.rs", "use crate::store::Store;")]);
    finds("base/x.rs:3", &[("base/x.rs", "use crate::{\nstore::{self, Store},\nerror::Error};")]);
    finds("`crypto` must not import `chunk`", &[("crypto/mod.rs", "fn f() { crate::chunk::cut(); }")]);
    finds("`repo` must not import `source`", &[("repo/writer.rs", "type T = Vec<crate::source::Walk>;")]);
    finds("`format` must not import `repo`", &[("format/pack.rs", "fn f() -> super::super::repo::Repo { g() }")]);
    finds(
        "`format` must not import `repo`",
        &[("format/pack.rs", "mod inner { use super::super::super::repo::Repo; }")],
    );
    finds("`store` must not import `ops`", &[("store/mod.rs", "#[cfg(test)] mod tests { use crate::ops::init; }")]);
    finds_nothing(&[(
        "chunk/mod.rs",
        "use crate::{crypto::keyed, error::Error}; use self::cut::Cut; use super::base::X;",
    )]);
    finds_nothing(&[("main.rs", "fn main() { holdfast::cli::run() }")]);
    finds_nothing(&[("lib.rs", "pub mod error; pub use crate::ops::Backup;")]);
}

#[test]
fn an_unknown_room() {
    finds("`helpers` is no room", &[("helpers/mod.rs", "")]);
    finds("`crate::Error` is no room", &[("store/mod.rs", "use crate::Error;")]);
}

#[test]
fn rooms_that_must_not_meet() {
    finds("must know no `repo`", &[("source/files.rs", "use crate::repo::Writer;")]);
    finds("must know no `region`", &[("source/files.rs", "use crate::region::Regions;")]);
    finds_nothing(&[("ops/backup.rs", "use crate::{repo::Writer, source::files};")]);
}

#[test]
fn a_crate_outside_its_room() {
    finds("crate `object_store` belongs to store", &[("repo/mod.rs", "use object_store::path::Path;")]);
    finds("crate `clap`", &[("ops/init.rs", "#[derive(clap::Args)]\nstruct A;")]);
    finds("crate `zstd_safe`", &[("format/pack.rs", "fn f() { ::zstd_safe::compress() }")]);
    finds("crate `aes_gcm`", &[("format/pack.rs", "extern crate aes_gcm;")]);
    finds("crate `getrandom`", &[("crypto/mod.rs", "use {std::fmt, getrandom as kernel};")]);
    finds("crate `granit_parser`", &[("cli/config.rs", "fn f(e: granit_parser::Error) {}")]);
    finds_nothing(&[("chunk/mod.rs", "mod zstd; use zstd::Codec; use fastcdc::v2020::FastCDC;")]);
    finds_nothing(&[("repo/mod.rs", "mod clap; fn f() { clap::hands() }")]);
}

#[test]
fn an_object_key_as_a_text() {
    finds("object key \"packs/\"", &[("ops/verify.rs", "const P: &str = \"packs/\";")]);
    finds("object key \"snapshots/{sid}\"", &[("cli/ls.rs", "fn f() { format!(\"snapshots/{sid}\") }")]);
    finds(
        "ops/a.rs:2",
        &[("ops/a.rs", "fn f() { x(\"config/1\") } #[cfg(test)] mod tests { const P: &str = \"keys/\"; }")],
    );
    finds_nothing(&[("store/key.rs", "const P: &str = \"packs/\";"), ("ops/verify.rs", "use crate::store::Key;")]);
}

#[test]
fn a_circle() {
    let found = findings(&[("chunk/mod.rs", "use crate::crypto::A;"), ("crypto/mod.rs", "use crate::chunk::B;")]);
    assert!(found.contains(&"circle of imports: chunk -> crypto -> chunk".to_owned()), "{found:#?}");
    let three = [
        ("repo/a.rs", "use super::b::B;"),
        ("repo/b.rs", "use super::{c, A};"),
        ("repo/c.rs", "use crate::repo::a::A;"),
    ];
    finds("circle of imports: repo::a -> repo::b -> repo::c -> repo::a", &three);
    let deep = [
        ("ops/backup/a.rs", "use super::b::B;"),
        ("ops/backup/b.rs", "use super::a::A;"),
        ("ops/backup/mod.rs", "mod a; mod b; use a::A;"),
    ];
    finds("circle of imports: ops::backup::a -> ops::backup::b -> ops::backup::a", &deep);
    let straight =
        [("repo/mod.rs", "pub use a::A; mod a;"), ("repo/a.rs", "use super::b;"), ("repo/b.rs", "use super::Common;")];
    finds_nothing(&straight);
    let tests_look_around =
        [("repo/a.rs", "use super::b;"), ("repo/b.rs", "#[cfg(test)] mod tests { use super::super::a; }")];
    finds_nothing(&tests_look_around);
}

#[test]
fn too_long() {
    let function = |lines: usize| format!("fn long(a: [u8; 2])\nwhere A: B {{\n{}}}\n", "x();\n".repeat(lines - 3));
    finds("`long` has 71 lines", &[("repo/a.rs", &function(71))]);
    finds_nothing(&[("repo/a.rs", &function(70))]);
    finds("repo/a.rs: 601 lines", &[("repo/a.rs", &"\n".repeat(600))]);
    finds_nothing(&[("repo/a.rs", &"\n".repeat(599))]);
    finds("main.rs: 41 lines, limit 40", &[("main.rs", &"\n".repeat(40))]);
}

#[test]
fn functions_are_measured() {
    let text = "fn a() {}\nimpl X {\n    pub async fn b<F: Fn() -> u8>(\n        self,\n    ) -> u8 {\n        \"}\";\n        '}'\n    }\n}\ntrait T {\n    fn none(&self) -> [u8; 3];\n}\ntype P = fn(u8) -> u8;\n";
    let file = File::scan("x.rs", text);
    let found: Vec<_> = file.functions.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
    assert_eq!(found, [("a", 1, 1), ("b", 3, 6)]);
}

#[test]
fn no_module_doc() {
    let found = check(&[File::scan("repo/mod.rs", "// Not a doc.\n"), File::scan("repo/a.rs", "//!\nfn f() {}")]);
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn a_panic_outside_tests() {
    finds("repo/a.rs:2: `unwrap`", &[("repo/a.rs", "fn f() { x.unwrap() }")]);
    finds("`unwrap`", &[("repo/a.rs", "fn f() { x.map(Option::unwrap) }")]);
    finds("`expect`", &[("repo/a.rs", "fn f() { x\n.expect(\"y\") }")]);
    finds_nothing(&[("repo/a.rs", "fn f() { task.expect() }")]);
    finds("`panic`", &[("repo/a.rs", "fn f() { panic!() }")]);
    finds("`todo`", &[("repo/a.rs", "fn f() { std::todo!() }")]);
    finds("`unwrap`", &[("repo/a.rs", "#[cfg(test)] use a::{b};\nfn f() { x.unwrap() }")]);
    finds("`unwrap`", &[("repo/a.rs", "#[cfg(any(test, feature = \"testing\"))] fn f() { x.unwrap() }")]);
    finds("`unwrap`", &[("repo/a.rs", "#[cfg(not(test))] fn f() { x.unwrap() }")]);
    finds("`unwrap`", &[("repo/a.rs", "#[cfg(test)] const X: T = T { a: 1 };\nfn f() { x.unwrap() }")]);
    finds("`unwrap`", &[("repo/a.rs", "#[cfg(test)] mod tests { fn g() {} }\nfn f() { x.unwrap() }")]);
    finds(
        "`unwrap`",
        &[("repo/a.rs", "#[cfg(test)] mod tests;\nfn f() {}"), ("repo/tests.rs", "fn f() { x.unwrap() }")],
    );
    finds_nothing(&[("repo/a.rs", "#[cfg(test)] mod tests;"), ("repo/a/tests.rs", "fn f() { x.unwrap() }")]);
    finds_nothing(&[(
        "repo/a.rs",
        "#[cfg(test)]\n#[allow(x)]\npub(crate) mod tests { fn f() { a.unwrap(); panic!() } }",
    )]);
    finds_nothing(&[(
        "repo/a.rs",
        "/// x.unwrap()\nfn f() { /* panic!() /* todo!() */ */ x.unwrap_or(\"a.unwrap()\"); }",
    )]);
}

#[test]
fn printing_outside_the_command_line() {
    finds("only `cli` prints", &[("ops/a.rs", "fn f() { println!(\"x\") }")]);
    finds("only `cli` prints", &[("base/a.rs", "fn f() { std::eprintln!(\"x\") }")]);
    finds_nothing(&[("cli/a.rs", "fn f() { println!() }"), ("main.rs", "fn main() { eprintln!() }")]);
}

#[test]
fn an_ignored_test() {
    finds("a.rs:3: ignored", &[("repo/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}")]);
    finds("ignored", &[("repo/a.rs", "#[test]\n#[cfg_attr(debug_assertions, ignore)]\nfn f() {}")]);
    finds_nothing(&[("repo/a.rs", "fn f() { let ignore = [ignore, 1]; g(a, ignore) }")]);
}

#[test]
fn strings_comments_and_lifetimes_are_told_apart() {
    let text = r##"a "x\"y" b'"' 'c' '\'' '\u{1F600}' 'life r"\" r#"a"b"# br"q" r#fn /* " */ // "
z"##;
    let tokens = lex(text);
    let strings: Vec<_> =
        tokens.iter().filter_map(|t| if let Kind::Str(s) = &t.kind { Some(s.as_str()) } else { None }).collect();
    assert_eq!(strings, ["x\\\"y", "\\", "a\"b", "q"]);
    let words: Vec<_> = tokens.iter().filter_map(|t| t.ident()).collect();
    assert_eq!(words, ["a", "fn", "z"]);
    assert_eq!(tokens.last().map(|t| t.line), Some(2));
}

#[test]
fn paths_are_resolved() {
    let file = File::scan(
        "format/pack.rs",
        "use super::{cbor, FormatError as E};\nfn f() { self::g(); crate::base::x::<T>(); minicbor::a() }",
    );
    let found: Vec<_> = file.paths.iter().map(|p| p.target.clone()).collect();
    let inside = |p: &str| Target::Inside(p.split("::").map(str::to_owned).collect());
    let wanted = [inside("format::cbor"), inside("format::FormatError"), inside("format::pack::g"), inside("base::x")];
    assert_eq!(found[..4], wanted);
    assert_eq!(found[4], Target::Outside("minicbor".into()));
}
