//! The modules of the engine import in one direction: each only from layers below its own.
//!
//! The test reads the sources: `use`, and paths written out, that begin with `crate::` or with
//! enough `super::` to leave their layer. Comments, strings and items that are compiled for tests
//! only do not count.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the crate root, from the bottom to the top. A module imports from those before
/// it only.
const LAYERS: [&str; 29] = [
    // What everything stands on.
    "sync", "numbers", "threads", "bytes", "clock", "hook", "times", "entry", "codec", "error",
    "poison", "config",
    // A segment in memory; how far an engine is; files and what lies in them.
    "image", "progress", "disk", "snapshot", "places", "ranges", "log",
    // State machines, and the engine that feeds them.
    "contract", "opening", "machine", "apply",
    // Tools over a directory; the shapes of their reports, for derived code only; tools over all of
    // it; the pages.
    "inspect", "repair", "restore", "serial", "testing", "docs",
];

/// Pairs of layers that import upward still, and how often. A number only falls, and at 0 its line
/// goes.
const UPWARD: [(&str, &str, usize); 0] = [];

/// One import of a layer.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    file: PathBuf,
    line: usize,
    from: String,
    /// `crate` for a name of the crate root, which is above all layers.
    to: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Words, `::` and single signs of a source, without comments, strings, characters and lifetimes.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut line, mut here) = (Vec::new(), 1, 0);
    while here < chars.len() {
        let start = here;
        match (at(here), at(here + 1)) {
            ('/', '/') => {
                while here < chars.len() && at(here) != '\n' {
                    here += 1
                }
            }
            ('/', '*') => {
                here += 2;
                while here < chars.len() && (at(here), at(here + 1)) != ('*', '/') {
                    here += 1
                }
                here += 2;
            }
            ('r', '"' | '#') if at(here + 1) == '"' || at(here + 2) == '"' => {
                let hashes = chars[here + 1..].iter().take_while(|c| **c == '#').count();
                let end: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
                here += 2 + hashes;
                while here < chars.len() && !chars[here..].starts_with(&end) {
                    here += 1
                }
                here += end.len();
            }
            ('"', _) => {
                here += 1;
                while here < chars.len() && at(here) != '"' {
                    here += 1 + usize::from(at(here) == '\\')
                }
                here += 1;
            }
            ('\'', '\\') => {
                here += 3;
                while at(here) != '\'' {
                    here += 1
                }
                here += 1;
            }
            ('\'', _) if at(here + 2) == '\'' => here += 3,
            ('\'', _) => here += 1,
            (':', ':') => {
                here += 2;
                tokens.push(Token { text: "::".to_owned(), line });
            }
            (c, _) if is_word(c) => {
                while is_word(at(here)) {
                    here += 1
                }
                let text = chars[start..here].iter().collect();
                tokens.push(Token { text, line });
            }
            (c, _) => {
                here += 1;
                if !c.is_whitespace() {
                    tokens.push(Token { text: c.to_string(), line });
                }
            }
        }
        line += chars[start..here.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// Finds in one file.
#[derive(Default)]
struct Found {
    /// Absolute paths, from the crate root, and their lines.
    paths: Vec<(Vec<String>, usize)>,
    /// Modules in files of their own, from the crate root.
    modules: Vec<Vec<String>>,
}

/// Reads the tokens of one file, which is the module `module`.
struct Reader<'a> {
    tokens: &'a [Token],
    here: usize,
    module: Vec<String>,
    found: Found,
}

impl Reader<'_> {
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.here + ahead).map_or("", |token| &token.text)
    }

    /// Goes behind the bracket that closes the one here.
    fn skip_brackets(&mut self) {
        let mut depth = 0;
        while self.here < self.tokens.len() {
            match self.text(0) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            self.here += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// Goes behind an item, a field, a variant or a statement.
    fn skip_item(&mut self) {
        while self.here < self.tokens.len() {
            match self.text(0) {
                ";" | "," => return self.here += 1,
                "{" => return self.skip_brackets(),
                "(" | "[" => self.skip_brackets(),
                // The list that it is the last of ends.
                ")" | "]" | "}" => return,
                _ => self.here += 1,
            }
        }
    }

    /// Everything up to the end of the file, or of the block of an inline module.
    fn read(&mut self) {
        let mut depth = 0;
        while self.here < self.tokens.len() {
            match (self.text(0), self.text(1)) {
                ("#", "[" | "!") => {
                    let for_tests = ["test", "all"].contains(&self.text(4))
                        && self.text(2) == "cfg"
                        && (self.text(4) == "test" || self.text(6) == "test");
                    self.here += if self.text(1) == "!" { 2 } else { 1 };
                    self.skip_brackets();
                    if for_tests {
                        while self.text(0) == "#" {
                            self.here += 1;
                            self.skip_brackets();
                        }
                        self.skip_item();
                    }
                }
                ("pub", "(") => {
                    self.here += 1;
                    self.skip_brackets();
                }
                ("mod", _) if self.text(2) == ";" => {
                    let name = self.text(1).to_owned();
                    self.found.modules.push(self.below(&name));
                    self.here += 3;
                }
                ("mod", _) if self.text(2) == "{" => {
                    let name = self.text(1).to_owned();
                    self.here += 3;
                    self.module.push(name);
                    self.read();
                    self.module.pop();
                }
                ("use", _) => {
                    self.here += 1;
                    self.read_tree(&mut Vec::new());
                }
                ("crate" | "super", "::") => {
                    let line = self.tokens[self.here].line;
                    let mut path = vec![self.text(0).to_owned()];
                    while self.text(1) == "::" {
                        self.here += 2;
                        path.push(self.text(0).to_owned());
                    }
                    self.add(&path, line);
                }
                ("{", _) => {
                    depth += 1;
                    self.here += 1;
                }
                ("}", _) => {
                    depth -= 1;
                    self.here += 1;
                    if depth < 0 {
                        return;
                    }
                }
                _ => self.here += 1,
            }
        }
    }

    /// A tree of a `use`, of which `above` was read.
    fn read_tree(&mut self, above: &mut Vec<String>) {
        let depth = above.len();
        loop {
            let line = self.tokens.get(self.here).map_or(0, |token| token.line);
            match self.text(0).to_owned().as_str() {
                "{" => {
                    self.here += 1;
                    while self.text(0) != "}" && self.here < self.tokens.len() {
                        self.read_tree(above);
                        self.here += usize::from(self.text(0) == ",");
                    }
                    self.here += 1;
                    break;
                }
                word => {
                    above.push(word.to_owned());
                    self.here += 1;
                    if self.text(0) == "::" {
                        self.here += 1;
                        continue;
                    }
                    self.here += if self.text(0) == "as" { 2 } else { 0 };
                    let path = above.clone();
                    self.add(&path, line);
                    break;
                }
            }
        }
        above.truncate(depth);
    }

    fn below(&self, name: &str) -> Vec<String> {
        self.module.iter().cloned().chain([name.to_owned()]).collect()
    }

    /// Takes a path of this crate.
    fn add(&mut self, path: &[String], line: usize) {
        let supers = path.iter().take_while(|word| *word == "super").count();
        let from_root = match path[0].as_str() {
            "crate" => path[1..].to_vec(),
            "super" => {
                let above = self.module.len().saturating_sub(supers);
                self.module[..above].iter().chain(&path[supers..]).cloned().collect()
            }
            // From another crate, or from below.
            _ => return,
        };
        self.found.paths.push((from_root, line));
    }
}

/// Reads the imports of `source`, the module `module`.
fn read_source(source: &str, module: &[String]) -> Found {
    let tokens = tokens(source);
    let module = module.to_vec();
    let mut reader = Reader { tokens: &tokens, here: 0, module, found: Found::default() };
    reader.read();
    reader.found
}

/// The imports of other layers in a file of the layer `module` begins with.
fn imports(file: &Path, found: &Found, module: &[String]) -> BTreeSet<Import> {
    let Some(from) = module.first() else { return BTreeSet::new() };
    let paths = found.paths.iter().filter_map(|(path, line)| {
        let first = path.first()?.as_str();
        let to = if LAYERS.contains(&first) { first } else { "crate" };
        (to != from).then(|| Import {
            file: file.to_owned(),
            line: *line,
            from: from.clone(),
            to: to.to_owned(),
        })
    });
    paths.collect()
}

fn height(layer: &str) -> usize {
    LAYERS.iter().position(|name| *name == layer).unwrap_or(LAYERS.len())
}

fn is_upward(import: &Import) -> bool {
    height(&import.to) > height(&import.from)
}

fn describe(import: &Import) -> String {
    let Import { file, line, from, to } = import;
    format!("{}:{line}: layer `{from}` imports from layer `{to}` above it", file.display())
}

/// All imports of the crate, by following its modules from the root; and the modules of the root.
fn all_imports() -> (BTreeSet<Import>, BTreeSet<String>) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut roots) = (BTreeSet::new(), BTreeSet::new());
    let mut left = vec![Vec::new()];
    while let Some(module) = left.pop() {
        let beside: PathBuf = module.iter().collect();
        let candidates =
            [beside.with_extension("rs"), beside.join("mod.rs"), beside.join("lib.rs")];
        let file = candidates.iter().find(|file| sources.join(file).is_file());
        let file = file.unwrap_or_else(|| panic!("no file of module {module:?}"));
        let read = read_source(&fs::read_to_string(sources.join(file)).unwrap(), &module);
        found.extend(imports(&Path::new("src").join(file), &read, &module));
        if module.is_empty() {
            roots = read.modules.iter().map(|path| path[0].clone()).collect();
        }
        left.extend(read.modules);
    }
    (found, roots)
}

#[test]
fn modules_import_from_lower_layers_only() {
    let (found, roots) = all_imports();
    assert_eq!(roots, LAYERS.map(str::to_owned).into(), "the layers, and the modules of lib.rs");
    assert!(found.len() > 500, "the walk finds the imports: {}", found.len());
    let mut upward: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for import in found.iter().filter(|import| is_upward(import)) {
        upward.entry((&import.from, &import.to)).or_default().push(describe(import));
    }
    let mut wrong = Vec::new();
    for ((from, to), lines) in &upward {
        let allowed = UPWARD.iter().find(|(a, b, _)| (a, b) == (from, to));
        let allowed = allowed.map_or(0, |(.., count)| *count);
        match lines.len().cmp(&allowed) {
            Ordering::Greater => wrong.push(format!("{allowed} allowed of:\n{}", lines.join("\n"))),
            Ordering::Less => wrong.push(format!("{from} to {to}: lower it to {}", lines.len())),
            Ordering::Equal => {}
        }
    }
    let gone = UPWARD.iter().filter(|(from, to, _)| !upward.contains_key(&(*from, *to)));
    wrong.extend(gone.map(|(from, to, _)| format!("{from} to {to}: there are none any more")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The picture of the imports, with a row for each layer, from the bottom to the top.
///
/// An `x` stands below the letter of each layer that the row's layer imports from. An upward import
/// would stand right of the letter.
fn picture(found: &BTreeSet<Import>) -> String {
    let letters = ('A'..='Z').chain('a'..='z');
    let mut picture = String::new();
    for (row, (from, letter)) in LAYERS.iter().zip(letters).enumerate() {
        let marks = LAYERS.iter().enumerate().map(|(column, to)| {
            let imports = found.iter().any(|import| import.from == *from && import.to == *to);
            match (column == row, imports) {
                (true, _) => letter,
                (false, true) => 'x',
                (false, false) => ' ',
            }
        });
        let marks: String = marks.flat_map(|mark| [' ', mark]).collect();
        picture.push_str(&format!("{letter} {from:<10}{}\n", marks.trim_end()));
    }
    picture
}

#[test]
fn the_picture_of_the_imports_is_the_one_in_the_page_on_architecture() {
    let (found, _) = all_imports();
    let expected = picture(&found);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let shown = fs::read_to_string(page).unwrap().contains(&format!("```text\n{expected}```"));
    assert!(shown, "put this into docs/architecture.md:\n{expected}");
}

#[test]
fn an_upward_import_is_found_wherever_it_stands() {
    let module = ["log".to_owned(), "writer".to_owned()];
    let sample = "\
//! Not [`crate::apply::manager`].
use crate::apply::Step;
use crate::{disk::Disk, machine::{Footprint, Range as _}};
use super::super::docs;
use super::format;
use std::fmt;
#[cfg(test)]
use crate::testing::Stepped;
#[cfg(all(test, not(loom)))]
mod tests { use crate::repair; }
/* crate::restore */
mod inner {
    pub(in crate::apply) fn inline<'a>(text: &'a str) -> char {
        super::super::super::inspect::verify(\"crate::restore\", r#\"crate::restore \"\"#);
        '\"' // crate::restore
    }
    const ROOT: &str = crate::ApplyManager::NAME;
}
";
    let found = imports(Path::new("a.rs"), &read_source(sample, &module), &module);
    let upward = found.iter().filter(|import| is_upward(import));
    let upward: Vec<_> = upward.map(|import| (import.line, import.to.as_str())).collect();
    let expected = [(2, "apply"), (3, "machine"), (4, "docs"), (14, "inspect"), (17, "crate")];
    assert_eq!(upward, expected);
    let first = found.iter().find(|import| import.line == 2).unwrap();
    assert_eq!(describe(first), "a.rs:2: layer `log` imports from layer `apply` above it");
    let downward = found.iter().filter(|import| !is_upward(import));
    assert_eq!(downward.map(|import| import.to.as_str()).collect::<Vec<_>>(), ["disk"]);
}
