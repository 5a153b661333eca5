//! The style of options: every type of options is built in the same way.

use super::{before_tests, files, read};

const ENDINGS: [&str; 5] = ["Config", "Policy", "Limits", "Options", "Suite"];

/// The public types of options in `source`, each with the attributes and the lines of its
/// declaration. A report of options in force is `non_exhaustive`, and is none of them.
fn option_types(source: &str) -> Vec<(String, Vec<&str>)> {
    let lines = before_tests(source);
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("pub struct ") else { continue };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
        let start =
            lines[..at].iter().rposition(|line| !line.starts_with("#[")).map_or(0, |it| it + 1);
        let end = at + lines[at..].iter().position(|line| *line == "}").unwrap_or(0);
        let declared = lines[start..=end].to_vec();
        let is_report = declared.contains(&"#[non_exhaustive]");
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) && !is_report {
            found.push((name, declared));
        }
    }
    found
}

/// The fault of a type of options, if it has one.
fn fault(source: &str, name: &str, declared: &[&str]) -> Option<&'static str> {
    if !declared.contains(&"#[must_use]") {
        return Some("the type is not must_use");
    }
    if declared.iter().any(|line| line.starts_with("    pub ")) {
        return Some("a field is public: a new option would break callers");
    }
    let made = source.find(&format!("impl {name} {{")).map(|at| &source[at..]);
    let made = made.and_then(|made| made.split("\n}\n").next()).unwrap_or_default();
    if !made.contains("    pub fn new(") {
        return Some("it is not made by new()");
    }
    made.lines()
        .any(|line| line.contains("pub fn ") && line.contains("&mut self"))
        .then_some("a setter borrows: it takes and returns the value")
}

#[test]
fn every_type_of_options_is_built_in_the_same_way() {
    let mut seen = Vec::new();
    for path in files("src", "rs").into_iter().chain(files("crates", "rs")) {
        let source = read(&path);
        for (name, declared) in option_types(&source) {
            let fault = fault(&source, &name, &declared);
            assert_eq!(fault, None, "{name} in {}", path.display());
            seen.push(name);
        }
    }
    for name in ["ApplyConfig", "PersistentConfig", "RetryPolicy", "Limits", "RedbConfig"] {
        assert!(seen.iter().any(|seen| seen == name), "the walk finds {name}: {seen:?}");
    }
}

#[test]
fn the_style_of_options_is_looked_at() {
    let good = "#[must_use]\npub struct AConfig {\n    a: u8,\n}\n\nimpl AConfig {\n    \
                pub fn new() -> Self {\n    }\n}\n";
    let of = |source: &str| {
        let types = option_types(source);
        let [(name, declared)] = &types[..] else { panic!("{types:?}") };
        fault(source, name, declared)
    };
    assert_eq!(of(good), None);
    assert!(of(&good.replace("#[must_use]\n", "")).is_some());
    assert!(of(&good.replace("    a:", "    pub a:")).is_some());
    assert!(of(&good.replace("new()", "make()")).is_some());
    assert!(of(&good.replace("new()", "new(&mut self)")).is_some());
    assert!(option_types(&good.replace("#[must_use]", "#[non_exhaustive]")).is_empty());
}
