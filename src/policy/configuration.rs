//! All documents of all files together: what each is, and what they say of each other.

use super::API_VERSION;
use super::backup::{self, BackupPolicy};
use super::doubts;
use super::name::quoted;
use super::repository::{self, Repository};
use super::schema;
use super::sheet::Sheet;
use super::types::{BackupPolicySpec, Document};
use super::yaml::{self, Node, Value, suggestion};
use crate::error::{Error, Kind, Result};
use serde::de::DeserializeOwned;
use std::collections::HashMap;

/// Most mistakes that are reported at once.
const MISTAKES_MAX: usize = 1000;

/// What a document describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// A repository.
    Repository,
    /// A policy.
    BackupPolicy,
}

impl DocumentKind {
    const NAMES: [&str; 2] = ["Repository", "BackupPolicy"];

    /// Its name in documents.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn parse(text: &str) -> Option<DocumentKind> {
        [DocumentKind::Repository, DocumentKind::BackupPolicy].into_iter().find(|kind| kind.name() == text)
    }
}

/// A file of the configuration, read.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Its name: it stands in errors, and relative paths of regions are relative to its folder.
    pub name: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// A whole configuration, judged.
#[derive(Debug, Clone)]
pub struct Configuration {
    repositories: Vec<Repository>,
    policies: Vec<BackupPolicy>,
}

/// A configuration and what in it is allowed and probably not meant.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The configuration.
    pub configuration: Configuration,
    /// Each with its place.
    pub warnings: Vec<Error>,
}

impl Configuration {
    /// The repositories, names all different.
    pub fn repositories(&self) -> &[Repository] {
        &self.repositories
    }

    /// The policies, names all different; each names one of the repositories.
    pub fn policies(&self) -> &[BackupPolicy] {
        &self.policies
    }

    /// The repository of this name, or the only one.
    ///
    /// # Errors
    /// [`Kind::Config`] when there is no such, or several and no name.
    pub fn repository(&self, name: Option<&str>) -> Result<&Repository> {
        let names: Vec<&str> = self.repositories.iter().map(|r| r.name().as_str()).collect();
        match (name, self.repositories.as_slice()) {
            (Some(name), all) => all.iter().find(|r| r.name().as_str() == name).ok_or_else(|| {
                config(format!("the configuration has no repository {}", quoted(name))).advise(suggestion(name, &names))
            }),
            (None, [only]) => Ok(only),
            (None, []) => Err(config("the configuration has no repository").advise(how_to_begin())),
            (None, _) => Err(config("the configuration has several repositories")
                .advise(format!("say which with --repository: {}", names.join(", ")))),
        }
    }

    /// The policy of this name.
    ///
    /// # Errors
    /// [`Kind::Config`] when there is none.
    pub fn policy(&self, name: &str) -> Result<&BackupPolicy> {
        self.policies.iter().find(|p| p.name().as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = self.policies.iter().map(|p| p.name().as_str()).take(100).collect();
            let e = config(format!("the configuration has no policy {}", quoted(name)));
            if names.is_empty() { e } else { e.advise(suggestion(name, &names)) }
        })
    }
}

fn config(what: impl Into<String>) -> Error {
    Error::new(Kind::Config, what)
}

fn how_to_begin() -> String {
    format!("write a document with apiVersion: {API_VERSION} and kind: {}", DocumentKind::Repository.name())
}

/// Reads a configuration.
///
/// # Errors
/// [`Kind::Config`] with every mistake, each with file, line, column and path.
pub fn load(texts: &[Text<'_>]) -> Result<Configuration> {
    Reading::of(texts, false).map(|checked| checked.configuration)
}

/// Reads a configuration and looks for what is allowed and probably not meant.
///
/// # Errors
/// As for [`load`].
pub fn check(texts: &[Text<'_>]) -> Result<Checked> {
    Reading::of(texts, true)
}

/// One repository of a configuration that may have mistakes elsewhere, and these: a restore must not wait until
/// somebody has mended a policy. Without a name it must be certain that there is no other repository.
///
/// # Errors
/// As for [`load`] and [`Configuration::repository`]: the document itself, or its name, or which one is meant, is not
/// beyond doubt.
pub fn repository(texts: &[Text<'_>], unread: Vec<Error>, name: Option<&str>) -> Result<(Repository, Vec<Error>)> {
    let mut reading = Reading::read(texts, false);
    let complete = reading.complete && unread.is_empty();
    reading.found.extend(unread);
    let named: Vec<Repository> =
        reading.repositories.iter().filter(|r| name.is_none_or(|name| r.name().as_str() == name)).cloned().collect();
    let [only] = named.as_slice() else {
        let checked = reading.end()?;
        return Ok((checked.configuration.repository(name)?.clone(), Vec::new()));
    };
    let mistakes = reading.end().err().map(apart).unwrap_or_default();
    if complete || name.is_some() {
        return Ok((only.clone(), mistakes));
    }
    let what =
        format!("whether `{}` is the only repository cannot be told: the configuration has mistakes", only.name());
    let unsure = config(what).advise(format!("correct them, or say --repository {}", only.name()));
    let all = std::iter::once(unsure).chain(mistakes).collect();
    Error::all(all).map_or_else(|| Ok((only.clone(), Vec::new())), Err)
}

/// Several mistakes in one, one by one.
fn apart(e: Error) -> Vec<Error> {
    let more = e.more().to_vec();
    std::iter::once(e).chain(more).collect()
}

/// The only repository of a file.
///
/// # Errors
/// As for [`load`], and when there is not exactly one.
pub fn parse(file_name: &str, text: &str) -> Result<Repository> {
    let configuration = load(&[Text { name: file_name, text }])?;
    configuration.repository(None).cloned().map_err(|e| e.at(file_name))
}

/// A file's documents.
struct File<'a> {
    name: &'a str,
    documents: Vec<Node>,
}

/// A policy's document, waiting until all repositories are known.
type Waiting<'a> = (&'a File<'a>, &'a Node, Document<BackupPolicySpec>);

#[derive(Default)]
struct Reading {
    repositories: Vec<Repository>,
    policies: Vec<BackupPolicy>,
    /// Whether every document was understood as far as what it is.
    complete: bool,
    /// Places of names that are taken.
    names: HashMap<(Among, String), String>,
    found: Vec<Error>,
    warnings: Vec<Error>,
}

/// What a name is unique among.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Among {
    Repository,
    /// Places of regions.
    Place,
    Policy,
    SourceOf(String),
}

impl Reading {
    fn of(texts: &[Text<'_>], warn: bool) -> Result<Checked> {
        Self::read(texts, warn).end()
    }

    fn read(texts: &[Text<'_>], warn: bool) -> Reading {
        let mut reading = Reading { complete: true, ..Reading::default() };
        let mut files = Vec::with_capacity(texts.len());
        for Text { name, text } in texts {
            let (documents, found) = yaml::read(name, text);
            reading.complete &= found.is_empty();
            reading.found.extend(found);
            files.push(File { name, documents });
        }
        let nothing = reading.found.is_empty() && files.iter().all(|file| file.documents.is_empty());
        if let Some(first) = files.first().filter(|_| nothing) {
            reading.found.push(config("the file is empty").at(first.name).advise(how_to_begin()));
        }
        let mut waiting: Vec<Waiting<'_>> = Vec::new();
        for file in &files {
            for document in &file.documents {
                waiting.extend(reading.document(file.name, document).map(|spec| (file, document, spec)));
            }
        }
        for (file, node, document) in &waiting {
            reading.policy(file.name, node, document, warn);
        }
        reading
    }

    fn end(mut self) -> Result<Checked> {
        let more = self.found.len().saturating_sub(MISTAKES_MAX);
        if more > 0 {
            self.found.truncate(MISTAKES_MAX);
            self.found.push(config(format!("and {more} more mistakes")));
        }
        match Error::all(self.found) {
            Some(e) => Err(e),
            None => {
                let configuration = Configuration { repositories: self.repositories, policies: self.policies };
                Ok(Checked { configuration, warnings: self.warnings })
            }
        }
    }

    /// Judges a document; a policy is only read.
    fn document(&mut self, file_name: &str, node: &Node) -> Option<Document<BackupPolicySpec>> {
        let mut sheet = Sheet::new(file_name, node);
        let kind = judge_head(&mut sheet, node);
        let mut policy = None;
        match kind {
            None => self.complete = false,
            Some(DocumentKind::Repository) => {
                let document = typed(&mut sheet, file_name, DocumentKind::Repository, node);
                let repository = document.and_then(|document| repository::judge(&mut sheet, &document));
                self.complete &= repository.is_some();
                if let Some(repository) = repository {
                    self.unique(&mut sheet, Among::Repository, repository.name().as_str(), "metadata.name");
                    for (n, region) in repository.regions().iter().enumerate() {
                        let path = format!("spec.regions[{n}].url");
                        self.unique(&mut sheet, Among::Place, &region.place.to_string(), &path);
                    }
                    self.repositories.push(repository);
                }
            }
            Some(DocumentKind::BackupPolicy) => {
                policy = typed(&mut sheet, file_name, DocumentKind::BackupPolicy, node);
            }
        }
        self.found.append(&mut sheet.found);
        policy
    }

    fn policy(&mut self, file_name: &str, node: &Node, document: &Document<BackupPolicySpec>, warn: bool) {
        let mut sheet = Sheet::new(file_name, node);
        let judged = backup::judge(&mut sheet, document, &self.repositories, self.complete);
        if let Some(policy) = judged {
            self.unique(&mut sheet, Among::Policy, policy.name().as_str(), "metadata.name");
            for (n, source) in policy.sources().iter().enumerate() {
                let among = Among::SourceOf(policy.repository().to_string());
                self.unique(&mut sheet, among, &source.name, &format!("spec.sources[{n}].name"));
            }
            if warn {
                self.warnings.extend(doubts::warnings(&sheet, &policy));
            }
            self.policies.push(policy);
        }
        self.found.append(&mut sheet.found);
    }

    /// Notes a name that is taken already.
    fn unique(&mut self, sheet: &mut Sheet<'_>, among: Among, name: &str, path: &str) {
        let (what, advice) = match &among {
            Among::Repository => ("a second repository is named", "give each a name of its own".to_owned()),
            Among::Place => (
                "another repository has the place",
                "one place is one repository: two would not know of each other's sources and retention".to_owned(),
            ),
            Among::Policy => ("a second policy is named", "give each a name of its own".to_owned()),
            Among::SourceOf(repository) => (
                "another policy has a source named",
                format!("sources of one repository (`{repository}`) need different names: retention judges by them"),
            ),
        };
        let place = sheet.place(path);
        if let Some(first) = self.names.get(&(among.clone(), name.to_owned())) {
            let what = format!("{what} {}; the first is at {first}", quoted(name));
            sheet.refuse(path, what, advice);
        } else {
            self.names.insert((among, name.to_owned()), place);
        }
    }
}

/// What the document is; `None` where that is not known here.
fn judge_head(sheet: &mut Sheet<'_>, node: &Node) -> Option<DocumentKind> {
    let text = |name: &str| match node.field(name).map(|field| &field.value) {
        Some(Value::Scalar { text, .. }) => Some(text.as_str()),
        _ => None,
    };
    if !matches!(node.value, Value::Map(_)) {
        sheet.found.push(config("a mapping is needed here: `field: value`").at(sheet.place("")));
        return None;
    }
    let Some(kind) = text("kind") else {
        let advice = format!("add kind: {}", DocumentKind::NAMES.join(" or kind: "));
        sheet.found.push(config("a document without kind").at(sheet.place("")).advise(advice));
        return None;
    };
    let Some(known) = DocumentKind::parse(kind) else {
        let what = format!("the kind {} is not known to this build", quoted(kind));
        sheet.refuse("kind", what, suggestion(kind, &DocumentKind::NAMES));
        return None;
    };
    match text("apiVersion") {
        Some(API_VERSION) => {}
        Some(other) => {
            let what = format!("the apiVersion {} is not known to this build", quoted(other));
            sheet.refuse("apiVersion", what, format!("use {API_VERSION}"));
            return None;
        }
        None => {
            let e = config("a document without apiVersion").at(sheet.place(""));
            sheet.found.push(e.advise(format!("add apiVersion: {API_VERSION}")));
            return None;
        }
    }
    Some(known)
}

/// The document as its type, when the schema finds nothing wrong.
fn typed<T: DeserializeOwned>(
    sheet: &mut Sheet<'_>,
    file_name: &str,
    kind: DocumentKind,
    node: &Node,
) -> Option<Document<T>> {
    let (json, found) = schema::check(file_name, kind, node);
    if !found.is_empty() {
        sheet.found.extend(found);
        return None;
    }
    // What the schema lets pass fits the type it was made of; if not, it is still refused.
    let read = serde_json::from_value(json).map_err(|e| config(super::name::one_line(&e.to_string())));
    sheet.take("", read)
}

#[cfg(test)]
mod tests;
