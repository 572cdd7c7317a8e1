//! Rust text to tokens: enough to tell code from comments, strings and lifetimes.

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or keyword; `r#` is taken off.
    Ident(String),
    /// The content of any string literal, escapes left as they stand.
    Str(String),
    /// One character of punctuation.
    Punct(char),
    /// Numbers, characters, lifetimes.
    Other,
}

/// A token and its line, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub line: usize,
}

impl Token {
    pub fn is(&self, c: char) -> bool {
        self.kind == Kind::Punct(c)
    }

    pub fn ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }
}

/// Splits `text`. Never fails: what is no Rust gives odd tokens.
pub fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, line: 1, out: Vec::new() };
    while lexer.at < lexer.chars.len() {
        lexer.step();
    }
    lexer.out
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    out: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn bump(&mut self) -> char {
        let c = self.peek(0);
        self.at += 1;
        if c == '\n' {
            self.line += 1;
        }
        c
    }

    fn push(&mut self, kind: Kind, line: usize) {
        self.out.push(Token { kind, line });
    }

    fn step(&mut self) {
        let (c, next, line) = (self.peek(0), self.peek(1), self.line);
        match c {
            _ if c.is_whitespace() => {
                self.bump();
            }
            '/' if next == '/' => {
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.bump();
                }
            }
            '/' if next == '*' => self.block_comment(),
            '"' => self.string(0, false),
            '\'' => self.quote(),
            _ if c.is_alphabetic() || c == '_' => self.word(),
            _ if c.is_ascii_digit() => {
                while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
                    self.bump();
                }
                self.push(Kind::Other, line);
            }
            _ => {
                self.bump();
                self.push(Kind::Punct(c), line);
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.bump();
                    continue;
                }
            }
            self.bump();
            self.bump();
            if depth == 0 {
                return;
            }
        }
    }

    /// An identifier, or the prefix of a string (`b"`, `r#"`, `br"`, `c"`), or `r#name`.
    fn word(&mut self) {
        let line = self.line;
        let mut name = String::new();
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            name.push(self.bump());
        }
        let raw = matches!(name.as_str(), "r" | "br" | "cr");
        let hashes = (0..).take_while(|&i| self.peek(i) == '#').count();
        match self.peek(hashes) {
            '"' if raw => self.string(hashes, true),
            '"' if hashes == 0 && matches!(name.as_str(), "b" | "c") => self.string(0, false),
            '\'' if hashes == 0 && name == "b" => self.quote(),
            c if name == "r" && hashes == 1 && (c.is_alphabetic() || c == '_') => {
                self.bump();
                self.word();
            }
            _ => self.push(Kind::Ident(name), line),
        }
    }

    /// At the hashes before the opening quote, or at the quote itself.
    fn string(&mut self, hashes: usize, raw: bool) {
        let line = self.line;
        for _ in 0..=hashes {
            self.bump();
        }
        let mut content = String::new();
        while self.at < self.chars.len() {
            let c = self.bump();
            if c == '"' && (0..hashes).all(|i| self.peek(i) == '#') {
                (0..hashes).for_each(|_| {
                    self.bump();
                });
                break;
            }
            content.push(c);
            if c == '\\' && !raw {
                content.push(self.bump());
            }
        }
        self.push(Kind::Str(content), line);
    }

    /// A character or a lifetime.
    fn quote(&mut self) {
        let line = self.line;
        self.bump();
        if self.peek(0) == '\\' {
            self.bump();
            self.bump();
            while self.at < self.chars.len() && self.bump() != '\'' {}
        } else if self.peek(1) == '\'' {
            self.bump();
            self.bump();
        } else {
            while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
                self.bump();
            }
        }
        self.push(Kind::Other, line);
    }
}
