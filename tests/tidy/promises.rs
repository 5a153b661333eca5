//! Promises and their tests. Each promise of the documents has an id, and each id has a test that
//! names it. `docs/testing.md` has both ways as tables. `SPRAG_WRITE_DOCS=1` writes the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::{read, root, rust_files};

/// Pages with promises.
const PAGES: [&str; 4] =
    ["README.md", "docs/ordering.md", "docs/durability.md", "docs/operating.md"];
/// A line of a test's documentation that names what it proves begins so.
const PROVES: &str = concat!("/// Pro", "ves ");
const BEGIN: &str = "<!-- promises: written by tests/tidy/promises.rs -->\n";
const END: &str = "<!-- end of promises -->\n";

/// Three capital letters and a number; `DUR-10` comes after `DUR-9`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id(String, u32);

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let (letters, number) = text.split_once('-')?;
        let is_id = letters.len() == 3 && letters.chars().all(|c| c.is_ascii_uppercase());
        is_id.then(|| number.parse().ok().map(|number| Self(letters.to_owned(), number)))?
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// A promise begins `**ID. Title.**`, or is a row of a table whose first cell is the id and whose
/// second is the title.
fn promises() -> BTreeMap<Id, (&'static str, String)> {
    let mut found = BTreeMap::new();
    for page in PAGES {
        for line in read(page).lines() {
            let bold = line.split_once("**").and_then(|(_, rest)| rest.split_once("**"));
            let bold = bold.and_then(|(title, _)| title.trim_end_matches('.').split_once(". "));
            let row = line.strip_prefix("| ").and_then(|line| line.split_once(" | "));
            let row = row.map(|(id, rest)| (id, rest.split(" | ").next().unwrap_or_default()));
            let Some((id, title)) = [bold, row]
                .into_iter()
                .flatten()
                .find_map(|(id, title)| Id::parse(id).map(|id| (id, title.replace('`', ""))))
            else {
                continue;
            };
            let before = found.insert(id.clone(), (page, title));
            assert!(before.is_none(), "{id} is made twice, in {page} too");
        }
    }
    assert!(found.len() > 30, "the walk finds the promises: {}", found.len());
    found
}

/// The tests that name what they prove, by file.
fn proofs() -> BTreeMap<(String, String), BTreeSet<Id>> {
    let mut found = BTreeMap::new();
    for path in rust_files() {
        let file = path.display().to_string();
        let mut ids = BTreeSet::new();
        let mut is_test = false;
        for (number, line) in read(&path).lines().map(str::trim).enumerate() {
            let place = format!("{file}:{}", number + 1);
            if let Some(named) = line.strip_prefix(PROVES) {
                for word in named.trim_end_matches('.').split([',', ' ']) {
                    if !matches!(word, "" | "and") {
                        let id = Id::parse(word);
                        ids.insert(id.unwrap_or_else(|| panic!("{word} in {place} is no id")));
                    }
                }
            } else if line.starts_with("#[") {
                is_test |= line.contains("test]") || line.contains("test(");
            } else if let Some((_, rest)) = line.split_once("fn ") {
                let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
                if !ids.is_empty() {
                    assert!(is_test, "{name} in {place} is no test");
                    found.insert((file.clone(), name), std::mem::take(&mut ids));
                }
                is_test = false;
            } else if !line.starts_with("//") && !line.is_empty() {
                assert!(ids.is_empty(), "what proves {ids:?} before {place}?");
            }
        }
    }
    found
}

fn tables() -> String {
    let (promises, proofs) = (promises(), proofs());
    let known: BTreeSet<_> = promises.keys().collect();
    let mut tests: BTreeMap<&Id, Vec<String>> = BTreeMap::new();
    for ((file, name), ids) in &proofs {
        for id in ids {
            assert!(known.contains(id), "{name} in {file} proves {id}, which is promised nowhere");
            tests.entry(id).or_default().push(format!("`{name}`"));
        }
    }
    let mut text = "| promise | page | tests |\n|---|---|---|\n".to_owned();
    for (id, (page, title)) in &promises {
        let tests = tests.get(id).unwrap_or_else(|| panic!("no test proves {id}, {title}"));
        let page = Path::new(page).file_stem().unwrap().display();
        writeln!(text, "| {id} {title} | {page} | {} |", tests.join(", ")).unwrap();
    }
    text += "\n| file | test | proves |\n|---|---|---|\n";
    for ((file, name), ids) in &proofs {
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        writeln!(text, "| `{file}` | `{name}` | {} |", ids.join(", ")).unwrap();
    }
    text
}

#[test]
fn every_promise_has_a_test_and_the_tables_of_docs_testing_say_which() {
    let page = read("docs/testing.md");
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}\n{}\n{END}{after}", tables());
    if std::env::var_os("SPRAG_WRITE_DOCS").is_some() {
        std::fs::write(root().join("docs/testing.md"), &wanted).unwrap();
    } else {
        let is_same = page == wanted;
        assert!(is_same, "run it with SPRAG_WRITE_DOCS=1: the tables of docs/testing.md are old");
    }
}
