//! `kind: Repository`: which regions hold a repository, and how many copies make a run a success.

use super::name::{Name, quoted};
use super::region::{RegionSpec, place};
use super::sheet::Sheet;
use super::types::{Copies, Document, Metadata, RegionEntry, RepositorySpec};
use super::{API_VERSION, DocumentKind};
use crate::base::RepoId;
use crate::error::{Error, Kind, Result};
use std::path::Path;

/// Most regions of one repository.
pub const REGIONS_MAX: usize = 16;

/// Priorities of regions go to this, and as far below 0.
const PRIORITY_MAX: u32 = 1000;

/// Copies asked for where nothing is said, as far as there are regions.
const COPIES_MIN_DEFAULT: u32 = 2;

/// A repository as the configuration describes it, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    name: Name,
    regions: Vec<RegionSpec>,
    copies_min: u32,
    repository_id: Option<RepoId>,
}

impl Repository {
    /// Judges what comes from somewhere else than a file. Without `copies_min` two copies are asked for, or
    /// one where there is one region.
    ///
    /// # Errors
    /// [`Kind::Config`] when there is no region, one of them is named twice, or `copies_min` is out of range.
    pub fn new(
        name: Name,
        regions: Vec<RegionSpec>,
        copies_min: Option<u32>,
        repository_id: Option<RepoId>,
    ) -> Result<Self> {
        let count = region_count(regions.len())?;
        if let Some(twice) = (1..=regions.len()).find_map(|n| repeated(&regions[..n])) {
            return Err(twice);
        }
        let copies_min = judge_copies(copies_min, count)?;
        Ok(Repository { name, regions, copies_min, repository_id })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its regions: at least one, names and places all different.
    pub fn regions(&self) -> &[RegionSpec] {
        &self.regions
    }

    /// Regions that must hold a complete copy before a run counts as done: from 1 to their number.
    pub fn copies_min(&self) -> u32 {
        self.copies_min
    }

    /// The document that says the same with nothing left out.
    pub fn effective(&self) -> Document<RepositorySpec> {
        let region = |r: &RegionSpec| RegionEntry {
            name: r.name.to_string(),
            url: r.place.to_string(),
            priority: Some(r.priority),
        };
        Document {
            api_version: API_VERSION.into(),
            kind: DocumentKind::Repository.name().into(),
            metadata: Metadata { name: self.name.to_string() },
            spec: RepositorySpec {
                regions: self.regions.iter().map(region).collect(),
                copies: Some(Copies { min: self.copies_min }),
                repository_id: self.repository_id.map(|id| id.hex()),
            },
        }
    }

    /// The only repository that may be found there, if it is pinned.
    pub fn repository_id(&self) -> Option<RepoId> {
        self.repository_id
    }
}

fn config(what: impl Into<String>) -> Error {
    Error::new(Kind::Config, what)
}

fn region_count(count: usize) -> Result<u32> {
    if count == 0 {
        return Err(config("the repository has no region").advise("name at least one"));
    }
    let known = u32::try_from(count).ok().filter(|_| count <= REGIONS_MAX);
    known.ok_or_else(|| config(format!("{count} regions are too many")).advise(format!("use at most {REGIONS_MAX}")))
}

fn judge_copies(asked: Option<u32>, regions: u32) -> Result<u32> {
    match asked {
        None => Ok(COPIES_MIN_DEFAULT.min(regions)),
        Some(min) if (1..=regions).contains(&min) => Ok(min),
        Some(min) => {
            let e = config(format!("copies.min is {min}, the number of regions is {regions}"));
            Err(e.advise(format!("use a number from 1 to {regions}")))
        }
    }
}

/// Says so when the last region has the name or the place of one before.
fn repeated(regions: &[RegionSpec]) -> Option<Error> {
    let (last, before) = regions.split_last()?;
    before.iter().find_map(|other| {
        if other.name == last.name {
            let e = config(format!("two regions are named `{}`", last.name));
            return Some(e.advise("give each a name of its own"));
        }
        (other.place == last.place).then(|| {
            let what = if last.place.folder().is_some() { "folder" } else { "bucket" };
            let e = config(format!("the regions `{}` and `{}` are the same {what}", other.name, last.name));
            e.advise(format!("a second copy in the same place is no copy: name another {what}"))
        })
    })
}

/// Judges a document; what is wrong with it stands on the sheet. Relative paths of regions are relative to the
/// file's folder.
pub(super) fn judge(sheet: &mut Sheet<'_>, document: &Document<RepositorySpec>) -> Option<Repository> {
    let before = sheet.found.len();
    let spec = &document.spec;
    let name = sheet.take("metadata.name", Name::parse("repository", &document.metadata.name));
    let count = sheet.take("spec.regions", region_count(spec.regions.len()));
    let regions = judge_regions(sheet, &spec.regions);
    let min = spec.copies.as_ref().map(|copies| copies.min);
    let copies_min = count.and_then(|count| sheet.take("spec.copies.min", judge_copies(min, count)));
    let repository_id = spec.repository_id.as_ref().and_then(|id| sheet.take("spec.repositoryId", judge_id(id)));
    if sheet.found.len() > before {
        return None;
    }
    Some(Repository { name: name?, regions, copies_min: copies_min?, repository_id })
}

fn judge_regions(sheet: &mut Sheet<'_>, entries: &[RegionEntry]) -> Vec<RegionSpec> {
    let base = Path::new(sheet.file_name()).parent().unwrap_or(Path::new(""));
    let mut regions = Vec::with_capacity(entries.len());
    for (n, RegionEntry { name, url, priority }) in entries.iter().enumerate().take(REGIONS_MAX) {
        let at = format!("spec.regions[{n}]");
        let name = sheet.take(&format!("{at}.name"), Name::parse("region", name));
        let place = sheet.take(&format!("{at}.url"), place(url, base));
        let priority = sheet.take(&format!("{at}.priority"), judge_priority(priority.unwrap_or(0)));
        let (Some(name), Some(place), Some(priority)) = (name, place, priority) else { continue };
        regions.push(RegionSpec { name, place, priority });
        if let Some(twice) = repeated(&regions) {
            sheet.note(&at, twice);
        }
    }
    regions
}

fn judge_priority(priority: i32) -> Result<i32> {
    if priority.unsigned_abs() <= PRIORITY_MAX {
        return Ok(priority);
    }
    let advice = format!("use a number from -{PRIORITY_MAX} to {PRIORITY_MAX}; the smallest is read first");
    Err(config(format!("{priority} is no priority")).advise(advice))
}

fn judge_id(id: &str) -> Result<RepoId> {
    RepoId::parse(id).ok_or_else(|| {
        config(format!("{} is not the id of a repository", quoted(id)))
            .advise("write its 32 lower-case hex digits, as `init` showed them")
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;

    /// A document whose spec is `spec`, indented by two.
    fn document(spec: &str) -> String {
        let mut text = format!("apiVersion: {API_VERSION}\nkind: Repository\nmetadata:\n  name: main\nspec:\n");
        spec.lines().for_each(|line| writeln!(text, "  {line}").unwrap());
        text
    }

    const TWO: &str = "regions:\n- name: a\n  url: /r/a\n- name: b\n  url: file:///r/b";

    #[track_caller]
    fn good(text: &str) -> Repository {
        parse("holdfast.yaml", text).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    /// The text is refused with all of `parts` in the error, which stands on one line.
    #[track_caller]
    fn refused(text: &str, parts: &[&str]) {
        let e = parse("dir/x.yaml", text).expect_err(text);
        let shown = e.to_string();
        assert_eq!(e.kind(), Kind::Config, "{shown}");
        assert!(e.place().is_some_and(|p| p.starts_with("dir/x.yaml")), "{shown}");
        assert!(!shown.contains('\n') && shown.len() < 1000, "{shown}");
        for part in parts {
            assert!(shown.contains(part), "no {part:?} in: {shown}\n{text}");
        }
    }

    #[test]
    fn all_of_it() {
        let id = "00112233445566778899aabbccddeeff";
        let read = good(&document(&format!(
            "{TWO}\n- {{name: c, url: sub/c, priority: -5}}\ncopies: {{min: 3}}\nrepositoryId: {id}"
        )));
        assert_eq!(read.name().as_str(), "main");
        let regions: Vec<_> = read.regions().iter().map(|r| (r.name.as_str(), r.place.to_string())).collect();
        assert_eq!(regions, [("a", "/r/a".into()), ("b", "/r/b".into()), ("c", "sub/c".to_owned())]);
        assert_eq!(read.regions().iter().map(|r| r.priority).collect::<Vec<_>>(), [0, 0, -5]);
        assert_eq!(read.copies_min(), 3);
        assert_eq!(read.repository_id(), RepoId::parse(id));
    }

    #[test]
    fn relative_folders_are_seen_from_the_file() {
        let text = document("regions: [{name: a, url: data}, {name: b, url: /data}]");
        let paths =
            |file: &str| parse(file, &text).unwrap().regions().iter().map(|r| r.place.to_string()).collect::<Vec<_>>();
        assert_eq!(paths("/etc/holdfast/holdfast.yaml"), ["/etc/holdfast/data", "/data"]);
        assert_eq!(paths("holdfast.yaml")[0], "data");
    }

    #[test]
    fn copies_by_default() {
        let regions =
            |n: usize| (0..n).fold("regions:\n".to_owned(), |s, i| s + &format!("- {{name: r{i}, url: /r/{i}}}\n"));
        for (n, wanted) in [(1, 1), (2, 2), (3, 2), (16, 2)] {
            assert_eq!(good(&document(&regions(n))).copies_min(), wanted, "{n}");
        }
        refused(&document(&regions(17)), &["x.yaml:7:", "17 regions", "at most 16"]);
        refused(&document("regions: []"), &["x.yaml:6:12", "no region"]);
    }

    #[test]
    fn copies_out_of_range() {
        refused(&document(&format!("{TWO}\ncopies:\n  min: 3")), &["x.yaml:12:10", "copies.min is 3", "from 1 to 2"]);
        refused(&document(&format!("{TWO}\ncopies: {{min: 0}}")), &["from 1 to 16"]);
        refused(&document(&format!("{TWO}\ncopies: {{min: -1}}")), &["x.yaml:11:17", "a whole number"]);
        refused(&document(&format!("{TWO}\ncopies: {{min: 99999999999}}")), &["x.yaml:11:17"]);
        refused(&document(&format!("{TWO}\ncopies: 2")), &["x.yaml:11:11", "a mapping is needed here"]);
        refused(&document(&format!("{TWO}\ncopies: {{}}")), &["`min` is missing"]);
    }

    #[test]
    fn unknown_and_missing_fields() {
        refused(&document("region: []"), &["x.yaml:6:3", "unknown field `region`", "did you mean `regions`?"]);
        refused(&document(&format!("{TWO}\nbanana: 1")), &["`banana`", "known here: copies, regions, repositoryId"]);
        refused(&document("regions: [{name: a, urll: /r}]"), &["x.yaml:6:23", "did you mean `url`?"]);
        refused(&document("regions: [{name: a}]"), &["x.yaml:6", "the field `url` is missing"]);
        refused(&document(&format!("{TWO}\nrepositoryId:")), &["x.yaml:11", "no value"]);
        refused(&document(&format!("{TWO}\ncopies: ~")), &["x.yaml:11:11"]);
        refused(&document(&format!("{TWO}\nregions: []")), &["x.yaml:11", "`regions` is given twice"]);
        let without = document(TWO).replace("  name: main\n", "  labels: {}\n");
        refused(&without, &["x.yaml:4:3", "unknown field `labels`"]);
    }

    #[test]
    fn regions_that_are_the_same() {
        refused(
            &document("regions:\n- {name: a, url: /r}\n- {name: a, url: /s}"),
            &["x.yaml:8:5", "two regions are named `a`"],
        );
        for other in ["/r/", "//r/.", "file:///r", "file:///%72"] {
            let text = document(&format!("regions:\n- {{name: a, url: /r}}\n- {{name: b, url: '{other}'}}"));
            refused(&text, &["x.yaml:8:5", "`a` and `b` are the same folder"]);
        }
    }

    #[test]
    fn values_that_are_none() {
        refused(&document("regions: [{name: A, url: /r}]"), &["x.yaml:6:20", "region `A` is not a valid name"]);
        refused(
            &document("regions: [{name: a, url: 's3://k:hunter2@b'}]"),
            &["x.yaml:6:28", "has a user", "usual variables and files"],
        );
        refused(&document("regions: [{name: a, url: 'ftp://b'}]"), &["x.yaml:6:28", "`ftp`", "are not supported"]);
        refused(&document(&format!("{TWO}\nrepositoryId: 12")), &["x.yaml:11:17", "`12` is not the id"]);
        refused(&document(TWO).replace("main", "Main"), &["x.yaml:4:9", "repository `Main`"]);
        refused(&document("regions: [{name: a, url: /r, priority: 1001}]"), &["x.yaml:6:", "-1000"]);
        refused(&document("regions: 3"), &["x.yaml:6:12", "a list is needed here"]);
        refused(&document("regions: [{name: [], url: /r}]"), &["x.yaml:6:20", "a text is needed here"]);
        refused("just text", &["x.yaml:1:1", "a mapping is needed here"]);
        refused("a: [", &["x.yaml:1"]);
        refused("\u{1}", &["x.yaml"]);
    }

    #[test]
    fn several_documents() {
        let one = document(TWO);
        assert_eq!(good(&format!("# comment\n---\n{one}---\n...\n")), good(&one));
        refused(&format!("{one}---\n{one}"), &["x.yaml:15:9", "a second repository is named `main`", "x.yaml:4:9"]);
        let other = one.replace("name: main", "name: other");
        let shared = ["x.yaml:19:10", "another repository has the place `/r/a`; the first is at dir/x.yaml:8:10"];
        refused(&format!("{one}---\n{other}"), &shared);
        let other = other.replace("/r/", "/q/");
        refused(&format!("{one}---\n{other}"), &["several repositories", "--repository: main, other"]);
        let drill = format!("{one}---\nkind: Drill\n");
        refused(&drill, &["x.yaml:12:7", "the kind `Drill` is not known to this build", "Repository, BackupPolicy"]);
        refused(&one.replace("Repository", "Repositry"), &["x.yaml:2:7", "did you mean `Repository`?"]);
        refused(&one.replace("kind: Repository\n", ""), &["x.yaml:1:1", "without kind"]);
        refused(&one.replace("v1alpha1", "v9"), &["x.yaml:1:13", "`holdfast.io/v9`", "use holdfast.io/v1alpha1"]);
        refused("kind: Repository", &["without apiVersion"]);
        for empty in ["", "\n", "# nothing\n", "---\n---\n"] {
            refused(empty, &["the file is empty"]);
        }
    }

    #[test]
    fn hostile_documents() {
        let bomb = (1..9).fold("a0: &a0 [x]\n".to_owned(), |s, i| {
            let many = format!("*a{},", i - 1).repeat(9);
            s + &format!("a{i}: &a{i} [{many}]\n")
        });
        refused(&bomb, &["anchors and aliases"]);
        refused(&document("regions: &r [{name: a, url: /r}]"), &["anchors and aliases"]);
        refused(&document("regions: *r"), &["anchors and aliases"]);
        refused(&document("<<: {regions: []}"), &["merge keys"]);
        refused(&document("regions: !!python/object:os.system []"), &["x.yaml"]);
        refused(&document("regions: !include /etc/passwd"), &["x.yaml"]);
        refused(&"[".repeat(100_000), &["x.yaml"]);
        refused(&"{a: ".repeat(100_000), &["x.yaml"]);
        refused(&"- ".repeat(100_000), &["x.yaml"]);
        refused(&format!("a: [{}]", "1,".repeat(100_000)), &["more than 20000 values"]);
        refused(&"--- 1\n".repeat(1000), &["x.yaml"]);
        refused(&" ".repeat(super::super::TEXT_BYTES_MAX + 1), &["more than 1048576 bytes"]);
        refused(&document(&format!("{}: 1", "k".repeat(5000))), &["x.yaml"]);
        refused(
            &document(&format!("regions: [{{name: \"{}\\n\", url: /r}}]", "n".repeat(5000))),
            &["not a valid name"],
        );
    }

    #[test]
    fn without_a_file() {
        let name = || Name::parse("repository", "x").unwrap();
        let spec = |s: &str| RegionSpec::parse(s).unwrap();
        let made = Repository::new(name(), vec![spec("a=/a"), spec("b=/b"), spec("c=/c")], None, None).unwrap();
        assert_eq!(made.copies_min(), 2);
        for (regions, copies) in [
            (vec![], None),
            (vec![spec("a=/a"), spec("a=/b")], None),
            (vec![spec("a=/a"), spec("b=/a/")], None),
            (vec![spec("a=s3://x/p"), spec("b=s3://x/p/")], None),
            (vec![spec("a=/a")], Some(2)),
        ] {
            assert_eq!(Repository::new(name(), regions, copies, None).unwrap_err().kind(), Kind::Config);
        }
    }

    proptest! {
        #[test]
        fn no_text_brings_it_down(text in ".{0,200}") {
            let _ = parse("x.yaml", &text);
        }

        #[test]
        fn no_change_brings_it_down(at in 0usize..200, with in r"[\[\]{}:,&*!|>'%@~#\-\n\t a0]{0,4}") {
            let mut text = document(TWO);
            let at = at.min(text.len());
            text.insert_str(at, &with);
            if let Err(e) = parse("x.yaml", &text) {
                prop_assert_eq!(e.kind(), Kind::Config);
                prop_assert!(e.place().is_some_and(|p| p.starts_with("x.yaml")));
            }
        }
    }
}
