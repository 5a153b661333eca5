//! Names in the changelog: what "Unreleased" says of a public item is said of one that exists.

use std::collections::{BTreeMap, BTreeSet};

use super::{files, read};

/// Names of the standard library, and of items that the section says are gone.
const ELSEWHERE: [&str; 5] =
    ["Arc", "Copy", "ExactSizeIterator", "Serialize", "SubmitError::NoLog"];

/// The types of the sources, each with the names of its methods, fields and variants.
struct Items(BTreeMap<String, BTreeSet<String>>);

/// The words of a line of code: identifiers and keywords.
fn words(code: &str) -> impl Iterator<Item = &str> {
    let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty())
}

/// The word after the first of `keywords` that the line has.
fn named<'a>(code: &'a str, keywords: &[&str]) -> Option<&'a str> {
    let mut words = words(code);
    words.find(|word| keywords.contains(word))?;
    words.next()
}

/// The type of a block: what is defined, or what an `impl` is for.
fn type_of(header: &str) -> Option<&str> {
    if !header.starts_with("impl") {
        return named(header, &["struct", "enum", "trait", "type"]);
    }
    let (mut depth, mut start) = (0, "impl".len());
    for (at, c) in header.char_indices() {
        depth += i32::from(c == '<') - i32::from(c == '>' && !header[..at].ends_with('-'));
        if depth == 0 && (c == '>' && start == "impl".len() || header[..=at].ends_with(" for ")) {
            start = at + 1;
        }
    }
    words(&header[start..]).next()
}

impl Items {
    fn of(sources: impl Iterator<Item = String>) -> Self {
        let mut items = BTreeMap::<String, BTreeSet<String>>::new();
        for source in sources {
            let mut block = None;
            for line in source.lines() {
                let code = line.split("//").next().unwrap_or_default();
                if code.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    block = type_of(code).map(str::to_owned);
                    items.extend(
                        block
                            .clone()
                            .map(|name| (name, BTreeSet::new()))
                            .filter(|(name, _)| !items.contains_key(name)),
                    );
                }
                let member =
                    named(code, &["fn"]).or_else(|| named(code, &["const"])).or_else(|| {
                        let code = code.strip_prefix("    ")?;
                        let code = code.strip_prefix("pub ").unwrap_or(code);
                        code.starts_with(|c: char| c.is_ascii_alphabetic())
                            .then(|| words(code).next())?
                    });
                let members = block.as_ref().and_then(|name| items.get_mut(name));
                if let (Some(members), Some(member)) = (members, member) {
                    members.insert(member.to_owned());
                }
            }
        }
        Self(items)
    }

    /// Whether `Type`, `Type::member`, or a variant of any type is there.
    fn has(&self, name: &str) -> bool {
        match name.split_once("::") {
            Some((owner, member)) => self.0.get(owner).is_some_and(|of| of.contains(member)),
            None => self.0.contains_key(name) || self.0.values().any(|of| of.contains(name)),
        }
    }
}

/// The names of types in a text, with a member where one is named. A name that `was ` stands
/// before is an old one.
fn names(text: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut found, mut rest) = (Vec::new(), &*text);
    while let Some((before, (code, after))) =
        rest.split_once('`').and_then(|(before, rest)| Some((before, rest.split_once('`')?)))
    {
        let path = code.split('(').next().unwrap_or_default();
        let is_path = path.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
        let is_type = |part: &&str| {
            part.starts_with(|c: char| c.is_ascii_uppercase())
                && part.contains(|c: char| c.is_ascii_lowercase())
        };
        let parts: Vec<_> = path.split("::").skip_while(|part| !is_type(part)).collect();
        if is_path && !parts.is_empty() && !before.ends_with("was ") {
            found.push(parts[..parts.len().min(2)].join("::"));
        }
        rest = after;
    }
    found
}

#[test]
fn the_changelog_names_public_items_that_exist() {
    let changelog = read("CHANGELOG.md");
    let unreleased = changelog.split("\n## ").find(|part| part.starts_with("Unreleased")).unwrap();
    let sources = [files("src", "rs"), files("crates", "rs")].concat();
    let items = Items::of(sources.into_iter().map(read));
    let named = names(unreleased);
    assert!(named.len() > 100, "{} names", named.len());
    let is_missing = |name: &String| !ELSEWHERE.contains(&&**name) && !items.has(name);
    let missing: BTreeSet<_> = named.into_iter().filter(is_missing).collect();
    assert_eq!(missing, BTreeSet::new(), "names in CHANGELOG.md of what does not exist");
}

#[test]
fn the_search_for_names_finds_types_members_and_variants() {
    let source = "pub struct One<'a> {\n    pub field: &'a u8,\n}\n\n\
        impl<'a, T: Fn() -> Two> Trait<Two> for One<'a> {\n    const fn call(&self) {}\n}\n\n\
        pub enum Other {\n    Variant(u8),\n}\n";
    let items = Items::of([source.to_owned()].into_iter());
    for there in ["One", "One::field", "One::call", "Other::Variant", "Variant"] {
        assert!(items.has(there), "{there}");
    }
    for missing in ["Two", "Trait::call", "Other::call", "One::Variant", "One::pub"] {
        assert!(!items.has(missing), "{missing}");
    }
    let text = "`a::One::call(1)` and `Two` (was `Three`),\nnot `FOUR`, `five_six` or `Seven x`";
    assert_eq!(names(text), ["One::call", "Two"]);
}
