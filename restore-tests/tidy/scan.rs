//! What one source file says: its paths and imports, its functions, which of it is test code.

use super::lex::{Kind, Token, lex};

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    /// From the line of `fn` to that of the closing brace.
    pub lines: usize,
    pub test: bool,
}

/// A path in a `use` or in an expression, with at least one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathUse {
    pub target: Target,
    pub line: usize,
    pub test: bool,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Into this crate; segments from the crate's root.
    Inside(Vec<String>),
    /// Begins with this name: another crate, or something in scope.
    Outside(String),
}

/// A scanned file.
pub struct File {
    /// Relative to `src`, with `/`.
    pub path: String,
    /// Module path: `["format", "cbor"]`; empty for `lib.rs`, `["main"]` for `main.rs`.
    pub module: Vec<String>,
    pub text: String,
    pub tokens: Vec<Token>,
    /// One flag a token.
    pub test: Vec<bool>,
    pub functions: Vec<Function>,
    pub paths: Vec<PathUse>,
    /// Modules under `#[cfg(test)]` that stand in files of their own.
    pub test_modules: Vec<Vec<String>>,
}

impl File {
    /// Reads what `text` at `path` says.
    pub fn scan(path: &str, text: &str) -> File {
        let tokens = lex(text);
        let module = module_of(path);
        let (test, names) = test_code(&tokens);
        let test_modules = names.into_iter().map(|name| [module.clone(), vec![name]].concat()).collect();
        let functions = functions(&tokens, &test);
        let paths = Paths::collect(&tokens, &test, &module);
        File { path: path.into(), module, text: text.into(), tokens, test, functions, paths, test_modules }
    }

    /// The top-level module that it is, or belongs to.
    pub fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    /// Turns the whole file into test code.
    pub fn mark_test(&mut self) {
        self.test.iter_mut().for_each(|t| *t = true);
        self.functions.iter_mut().for_each(|f| f.test = true);
        self.paths.iter_mut().for_each(|p| p.test = true);
    }
}

fn module_of(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|p| p == "mod") || parts == ["lib"] {
        parts.pop();
    }
    parts
}

/// Index of the token that closes the bracket at `open`, or the last one.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Punct('(' | '[' | '{') => depth += 1,
            Kind::Punct(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    tokens.len().saturating_sub(1)
}

/// Marks the items under `#[cfg(test)]` and `#[test]`; names the modules among them without a body.
fn test_code(tokens: &[Token]) -> (Vec<bool>, Vec<String>) {
    let mut marks = vec![false; tokens.len()];
    let mut elsewhere = Vec::new();
    for i in 0..tokens.len() {
        let inner = usize::from(tokens.get(i + 1).is_some_and(|t| t.is('!')));
        if !tokens[i].is('#') || !tokens.get(i + 1 + inner).is_some_and(|t| t.is('[')) {
            continue;
        }
        let end = closing(tokens, i + 1 + inner);
        if !says_test(&tokens[i + 2 + inner..end]) {
            continue;
        }
        let last = if inner == 1 { tokens.len() - 1 } else { item_end(tokens, end + 1) };
        marks[i..=last].fill(true);
        elsewhere.extend(bodiless_module(&tokens[end + 1..=last]));
    }
    (marks, elsewhere)
}

/// `test`, `cfg(test)` or `cfg(all(test, …))`; not `any`, which is also shipped.
fn says_test(attribute: &[Token]) -> bool {
    let words: Vec<&str> = attribute.iter().filter_map(Token::ident).collect();
    matches!(words.as_slice(), ["test"] | ["cfg", "test"] | ["cfg", "all", "test", ..])
}

/// The last token of the item that begins at `start`, which may begin with more attributes.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut i = start;
    while i + 1 < tokens.len() && tokens[i].is('#') {
        i = closing(tokens, i + 1) + 1;
    }
    let word = |at: usize| tokens.get(at).and_then(Token::ident).unwrap_or_default();
    let mut head = i;
    if word(head) == "pub" {
        head += 1;
        if tokens.get(head).is_some_and(|t| t.is('(')) {
            head = closing(tokens, head) + 1;
        }
    }
    let statement =
        matches!(word(head), "use" | "static" | "type" | "let") || (word(head) == "const" && word(head + 1) != "fn");
    while i < tokens.len() {
        match tokens[i].kind {
            Kind::Punct(';') => return i,
            Kind::Punct('{') if !statement => return closing(tokens, i),
            Kind::Punct('(' | '[' | '{') => i = closing(tokens, i) + 1,
            _ => i += 1,
        }
    }
    tokens.len() - 1
}

fn bodiless_module(item: &[Token]) -> Option<String> {
    let at = item.iter().position(|t| t.ident() == Some("mod"))?;
    item.get(at + 2).filter(|t| t.is(';'))?;
    item.get(at + 1)?.ident().map(str::to_owned)
}

fn functions(tokens: &[Token], test: &[bool]) -> Vec<Function> {
    let mut found = Vec::new();
    for (i, pair) in tokens.windows(2).enumerate() {
        let (Some("fn"), Some(name)) = (pair[0].ident(), pair[1].ident()) else { continue };
        let mut at = i + 2;
        while at < tokens.len() && !tokens[at].is('{') && !tokens[at].is(';') {
            let skip = tokens[at].is('(') || tokens[at].is('[');
            at = if skip { closing(tokens, at) + 1 } else { at + 1 };
        }
        if tokens.get(at).is_some_and(|t| t.is('{')) {
            let last = tokens[closing(tokens, at)].line;
            let line = pair[0].line;
            found.push(Function { name: name.into(), line, lines: last - line + 1, test: test[i] });
        }
    }
    found
}

/// Collects paths, following inline modules so that `super` means the right one.
struct Paths<'a> {
    tokens: &'a [Token],
    /// The file's module and the inline modules around the current token, each with its end.
    module: Vec<String>,
    ends: Vec<usize>,
    local: Vec<&'a str>,
    out: Vec<(Target, usize)>,
}

impl<'a> Paths<'a> {
    fn collect(tokens: &'a [Token], test: &[bool], module: &[String]) -> Vec<PathUse> {
        let local = tokens.windows(2).filter(|p| p[0].ident() == Some("mod")).filter_map(|p| p[1].ident()).collect();
        let mut paths = Paths { tokens, module: module.to_vec(), ends: Vec::new(), local, out: Vec::new() };
        let mut i = 0;
        while i < tokens.len() {
            i = paths.step(i);
        }
        let found = paths.out;
        found.into_iter().map(|(target, at)| PathUse { target, line: tokens[at].line, test: test[at] }).collect()
    }

    fn separator(&self, at: usize) -> bool {
        matches!(self.tokens.get(at..at + 2), Some([a, b]) if a.is(':') && b.is(':'))
    }

    /// Handles the token at `i`; gives the index to go on from.
    fn step(&mut self, i: usize) -> usize {
        while self.ends.last().is_some_and(|&end| i > end) {
            self.ends.pop();
            self.module.pop();
        }
        let Some(word) = self.tokens[i].ident() else { return i + 1 };
        let next = self.tokens.get(i + 1);
        match word {
            "mod" if self.tokens.get(i + 2).is_some_and(|t| t.is('{')) => {
                self.module.extend(next.and_then(Token::ident).map(str::to_owned));
                self.ends.push(closing(self.tokens, i + 2));
                i + 3
            }
            "use" if next.is_some_and(|t| !t.is('<')) => {
                let end = (i..self.tokens.len()).find(|&j| self.tokens[j].is(';')).unwrap_or(self.tokens.len());
                self.tree(i + 1, end, &[]);
                end
            }
            "crate" if i > 0 && self.tokens[i - 1].ident() == Some("extern") => {
                self.out.extend(next.and_then(Token::ident).map(|name| (Target::Outside(name.into()), i)));
                i + 2
            }
            _ if self.separator(i + 1) => self.expression(i),
            _ => i + 1,
        }
    }

    /// A path outside `use`: its names up to the first that is not followed by `::`.
    fn expression(&mut self, start: usize) -> usize {
        let mut names = Vec::new();
        let mut i = start;
        while let Some(name) = self.tokens.get(i).and_then(Token::ident) {
            names.push(name.to_owned());
            i += 1;
            if !self.separator(i) {
                break;
            }
            i += 2;
        }
        let bang = self.tokens.get(i).is_some_and(|t| t.is('!'));
        if !(bang && names.len() == 2 && names[0] == "crate") {
            self.record(names, start);
        }
        i.max(start + 1)
    }

    /// A `use` tree between `i` and `end`.
    fn tree(&mut self, mut i: usize, end: usize, prefix: &[String]) {
        let mut names = prefix.to_vec();
        let start = i;
        while i < end {
            match &self.tokens[i].kind {
                Kind::Ident(word) if word == "as" => i = end,
                Kind::Ident(word) => {
                    names.push(word.clone());
                    i += 1;
                }
                Kind::Punct('{') => {
                    let close = closing(self.tokens, i).min(end);
                    self.branches(i + 1, close, &names);
                    return;
                }
                _ => i += 1,
            }
        }
        self.record(names, start);
    }

    fn branches(&mut self, mut from: usize, close: usize, prefix: &[String]) {
        let mut i = from;
        while i < close {
            if self.tokens[i].is('{') {
                i = closing(self.tokens, i);
            } else if self.tokens[i].is(',') {
                self.tree(from, i, prefix);
                from = i + 1;
            }
            i += 1;
        }
        if from < close {
            self.tree(from, close, prefix);
        }
    }

    fn record(&mut self, names: Vec<String>, at: usize) {
        let Some(first) = names.first() else { return };
        let target = match first.as_str() {
            "crate" | "holdfast" => Target::Inside(names[1..].to_vec()),
            "self" => Target::Inside([&self.module, &names[1..]].concat()),
            "super" => {
                let up = names.iter().take_while(|n| *n == "super").count();
                let base = &self.module[..self.module.len().saturating_sub(up)];
                Target::Inside([base, &names[up..]].concat())
            }
            name if self.local.contains(&name) => Target::Inside([&self.module, names.as_slice()].concat()),
            name => Target::Outside(name.into()),
        };
        self.out.push((target, at));
    }
}
