//! Tests of rules for the whole repository: places of unsafe code, files and threads, lengths of
//! files, and links of the documents.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "tidy/changelog.rs"]
mod changelog;
mod direction;
#[path = "tidy/options.rs"]
mod options;
#[path = "tidy/promises.rs"]
mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/words.rs"]
mod words;

/// Most lines of a file before its tests.
const LINES_MAX: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below `folder` with this extension, relative to the root, sorted. A missing folder has
/// none.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(root()).unwrap().to_path_buf());
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<PathBuf> {
    let folders = ["src", "crates", "tests", "benches", "examples", "fuzz"];
    let found: Vec<_> = folders.iter().flat_map(|folder| files(folder, "rs")).collect();
    assert!(found.len() > 50, "the walk finds the sources: {}", found.len());
    found
}

fn documents() -> Vec<PathBuf> {
    let mut found = files("docs", "md");
    found.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(PathBuf::from));
    assert!(found.len() >= 11, "the walk finds the documents: {found:?}");
    found
}

/// Whether a file of `src` contains only tests.
fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    in_tests || name == "tests" || name.ends_with("_tests") || name == "test_disk"
}

/// The lines before the tests of a file.
fn before_tests(source: &str) -> Vec<&str> {
    let lines: Vec<_> = source.lines().collect();
    let tests = lines.windows(3).position(|window| {
        let for_tests =
            ["#[cfg(test)]", "#[cfg(all(test,"].iter().any(|cfg| window[0].starts_with(cfg));
        for_tests && window[1..].iter().any(|line| line.contains("mod tests"))
    });
    lines[..tests.unwrap_or(lines.len())].to_vec()
}

/// Lines of the non-test part of each file of `folder` that contain one of `needles` outside of
/// comments.
fn uses(folder: &str, needles: &[&str], allowed: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(folder, "rs") {
        if is_test_file(&path) || allowed(&path) {
            continue;
        }
        for (number, line) in before_tests(&read(&path)).iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if needles.iter().any(|needle| code.contains(needle)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

/// The words of a document in backticks.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn unsafe_code_is_only_in_the_files_that_docs_unsafe_lists_and_argues_for() {
    // The lint is denied in the whole workspace, so a file with unsafe code must lift it. The lint
    // may share a line with others.
    let lint = concat!("unsafe", "_code");
    let lifts = |line: &str| {
        let line = line.trim();
        line.contains(&format!("({lint}")) || line == format!("{lint},")
    };
    let used: BTreeSet<_> = rust_files()
        .into_iter()
        .filter(|path| read(path).lines().any(lifts))
        .map(|path| path.display().to_string())
        .collect();
    let document = read("docs/unsafe.md");
    let headings = document.lines().filter_map(|line| line.strip_prefix("## `"));
    let listed: BTreeSet<_> =
        headings.filter_map(|line| line.strip_suffix('`')).map(str::to_owned).collect();
    assert_eq!(used, listed, "files with unsafe code, and headings of docs/unsafe.md");
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("unsafe_code = \"deny\""));
    for lint in ["undocumented_unsafe_blocks", "multiple_unsafe_ops_per_block"] {
        assert!(manifest.contains(&format!("{lint} = \"deny\"")), "{lint}");
    }
    for manifest in files("crates", "toml") {
        assert!(read(&manifest).contains("[lints]\nworkspace = true"), "{}", manifest.display());
    }
}

#[test]
fn an_extent_of_the_log_is_claimed_only_in_the_files_that_docs_unsafe_argues_for() {
    // A safe way to make one would need none of these files to lift the lint.
    let place = read("src/codec/place.rs");
    let place = place.split_whitespace().collect::<Vec<_>>().join(" ");
    let safe = "fn new( segment: SegmentNumber, frame: u32, start: u32, end: u32, )";
    assert!(place.contains(&format!("pub(crate) const unsafe {safe}")), "{safe} is unsafe");
    let claims = concat!("Extent::", "new(");
    let claiming: BTreeSet<_> = rust_files()
        .into_iter()
        .filter(|path| before_tests(&read(path)).iter().any(|line| line.contains(claims)))
        .map(|path| path.display().to_string())
        .collect();
    let document = read("docs/unsafe.md");
    let table = document.split("| maker of an extent |").nth(1).unwrap();
    let table = table.split("\n\n").next().unwrap();
    let argued: BTreeSet<_> =
        table.split('`').filter(|word| word.starts_with("src/")).map(str::to_owned).collect();
    assert_eq!(claiming, argued, "files that claim an extent, and the table of docs/unsafe.md");
}

/// Fallbacks of the product's code that no comment explains. The number only falls.
const QUIET_FALLBACKS_MAX: usize = 0;

/// Whether a line of code replaces a number that does not fit, or a part that is not there. Also
/// whether it stops a number at its end, or drops an error.
fn has_fallback(code: &str) -> bool {
    // No time is left of a timeout that is over. None has passed since a time that another core
    // read later. Neither needs words at each place.
    let is_of_time = code.contains("elapsed())") || code.contains("clock.now()");
    let saturates = code.contains(".saturating_") && !is_of_time;
    // The error of a conversion tells no more than that it failed.
    let converts = [
        "try_from(",
        "try_into()",
        "parse(",
        "parse::<",
        "from_utf8(",
        "from_str_radix(",
        "decode(",
    ];
    let drops = code.contains(".ok()") && !converts.iter().any(|call| code.contains(call));
    if saturates || drops {
        return true;
    }
    let narrows = code.contains("try_from(") || code.contains("try_into()");
    let saturates = code.contains("::MAX)");
    let part = [".get(", ".get_mut(", ".first()", ".last()", ".pop()", ".list()"];
    let of_part = part.iter().any(|call| code.contains(call));
    let by_nothing = [".unwrap_or_default()", ".unwrap_or(0)", ".unwrap_or(&[])"];
    let by_nothing = by_nothing.iter().any(|call| code.contains(call));
    let by_any = by_nothing || code.contains(".unwrap_or(");
    by_any && (narrows || saturates) || by_nothing && of_part
}

#[test]
fn a_fallback_for_what_should_not_happen_has_a_comment_that_says_why() {
    let is_of_tests = |path: &Path| {
        let path = path.display().to_string();
        let tools = ["crates/bench/", "crates/instructions/", "build.rs", "src/sync/under_"];
        ["test", "fuzzing", "models", "/sim", "examples", "benches"]
            .iter()
            .chain(&tools)
            .any(|part| path.contains(part))
    };
    let mut quiet = Vec::new();
    for path in rust_files().into_iter().filter(|path| !is_of_tests(path)) {
        let source = read(&path);
        let lines = before_tests(&source);
        for (at, line) in lines.iter().enumerate() {
            let (code, comment) =
                line.split_once("//").map_or((*line, false), |(code, _)| (code, true));
            // A comment explains all the fallbacks that follow it line by line.
            let before = lines[..at].iter().rev().find(|line| !has_fallback(line));
            let is_explained = comment || before.is_some_and(|line| line.trim().starts_with("//"));
            if has_fallback(code) && !is_explained {
                quiet.push(format!("{}:{}: {}", path.display(), at + 1, code.trim()));
            }
        }
    }
    let (found, most) = (quiet.len(), QUIET_FALLBACKS_MAX);
    assert!(found <= most, "{found} fallbacks without a comment, more than {most}: {quiet:#?}");
    assert!(found >= most, "there are {found} left: lower QUIET_FALLBACKS_MAX from {most}");
}

#[test]
fn the_search_for_fallbacks_finds_them() {
    for quiet in [
        "let a = u32::try_from(b).unwrap_or(u32::MAX);",
        "let a = b.try_into().unwrap_or_default();",
        "let a = b.iter().min().unwrap_or(u64::MAX);",
        "let a = b.get(1..).unwrap_or_default();",
        "let a = b.saturating_sub(c);",
        "let a = read(b).ok();",
    ] {
        assert!(has_fallback(quiet), "{quiet}");
    }
    for plain in [
        "let a = u32::try_from(b)?;",
        "a.unwrap_or(b)",
        "let left = timeout.saturating_sub(began.elapsed());",
        "let a = text.parse().ok();",
    ] {
        assert!(!has_fallback(plain), "{plain}");
    }
}

#[test]
fn a_file_is_short_enough_to_be_read() {
    for path in rust_files() {
        let lines = before_tests(&read(&path)).len();
        assert!(lines <= LINES_MAX, "{} has {lines} lines, more than {LINES_MAX}", path.display());
    }
}

#[test]
fn every_integration_test_has_its_promise_in_docs_testing() {
    let document = read("docs/testing.md");
    let words = document.split(|c: char| c.is_whitespace() || "`|,".contains(c));
    let named: BTreeSet<_> = words
        .filter(|word| word.starts_with("tests/") || word.starts_with("crates/cli/tests/"))
        .map(|word| word.trim_end_matches(['.', '/']).to_owned())
        .collect();
    for path in &named {
        assert!(root().join(path).exists(), "{path} in docs/testing.md");
    }
    let mut found = 0;
    let roots = ["tests/main.rs", "tests/processes.rs"].map(Path::new);
    let has_tests =
        |path: &&PathBuf| path.components().count() == 2 && !roots.contains(&path.as_path());
    for path in files("tests", "rs").iter().filter(has_tests) {
        assert!(named.contains(&path.display().to_string()), "{} has no row", path.display());
        found += 1;
    }
    assert!(found > 15, "{found} tests");
}

/// The file of each module that `file` declares, where `root` is the crate's.
fn modules(file: &Path, root: &Path) -> Vec<PathBuf> {
    let (text, folder) = (read(file), file.parent().unwrap());
    let name = file.file_stem().unwrap();
    let below = if file == root || name == "mod" { folder.to_owned() } else { folder.join(name) };
    let mut path = None;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        let module = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
        if let Some(given) = line.strip_prefix("#[path = \"") {
            path = given.strip_suffix("\"]").map(|given| without_parents(&folder.join(given)));
        } else if let Some((_, module)) = module {
            let places = [below.join(format!("{module}.rs")), below.join(module).join("mod.rs")];
            let place = places.into_iter().find(|place| crate::root().join(place).exists());
            found.extend(path.take().or(place));
        }
    }
    found
}

/// The path without `..`, by its text.
fn without_parents(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, component| {
        match component {
            std::path::Component::ParentDir => drop(path.pop()),
            other => path.push(other),
        }
        path
    })
}

/// The integration test binaries of a crate: name, and files, of which the root is one.
fn test_binaries(folder: &str) -> Vec<(String, BTreeSet<PathBuf>)> {
    let manifest = read(Path::new(folder).join("Cargo.toml"));
    let tests = Path::new(folder).join("tests");
    let roots: Vec<(String, PathBuf)> = if manifest.contains("autotests = false") {
        let field = |test: &str, name: &str| {
            let line = test.lines().find_map(|line| line.strip_prefix(&format!("{name} = \"")));
            line.unwrap().trim_end_matches('"').to_owned()
        };
        let tests = manifest.split("[[test]]").skip(1);
        tests
            .map(|test| (field(test, "name"), Path::new(folder).join(field(test, "path"))))
            .collect()
    } else {
        let depth = tests.components().count();
        let root = |path: PathBuf| {
            let named = match path.components().count() - depth {
                1 => Some(path.file_stem()),
                2 if path.ends_with("main.rs") => Some(path.parent().unwrap().file_name()),
                _ => None,
            };
            named.map(|name| (name.unwrap().display().to_string(), path.clone()))
        };
        files(tests.to_str().unwrap(), "rs").into_iter().filter_map(root).collect()
    };
    let with_modules = |(name, root): (String, PathBuf)| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(file) = open.pop() {
            open.extend(modules(&file, &root));
            seen.insert(file);
        }
        (name, seen)
    };
    roots.into_iter().map(with_modules).collect()
}

/// The folders of all crates.
fn crates() -> Vec<String> {
    let mut folders = vec![String::new()];
    let crates = fs::read_dir(root().join("crates")).unwrap();
    folders.extend(crates.map(|path| format!("crates/{}", path.unwrap().file_name().display())));
    folders
}

#[test]
fn no_file_of_tests_is_left_out_of_the_test_binaries() {
    // A file may be a module of another crate's tests.
    let binaries = crates().into_iter().flat_map(|folder| test_binaries(&folder));
    let run: BTreeSet<_> = binaries.flat_map(|(_, files)| files).collect();
    let mut found = 0;
    for folder in crates() {
        for path in files(Path::new(&folder).join("tests").to_str().unwrap(), "rs") {
            assert!(run.contains(&path), "{} is in no test binary", path.display());
            found += 1;
        }
    }
    assert!(found > 100, "{found} files");
}

/// The words of a list in the gate: `name=(...)`.
fn list_of_the_gate(name: &str) -> Vec<String> {
    let gate = read(".ci/run");
    let list = gate.lines().find_map(|line| line.strip_prefix(&format!("{name}=(")));
    let list = list.unwrap_or_else(|| panic!("the gate has no list {name}"));
    list.trim_end_matches(')').split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_gate_tests_the_second_way_to_write_the_log_wherever_a_test_asks_for_it() {
    // Either in the file that the others include, or by itself.
    let (included, variable) = (Path::new("common/io.rs"), concat!("\"SPRAG_", "TEST_IO\""));
    let asks = |file: &PathBuf| file.ends_with(included) || read(file).contains(variable);
    let mut asking: BTreeSet<_> =
        crates().iter().flat_map(|folder| test_binaries(folder)).collect();
    asking.retain(|(_, files)| files.iter().any(asks));
    let asking: BTreeSet<_> = asking.into_iter().map(|(name, _)| name).collect();
    let mut run: BTreeSet<_> = list_of_the_gate("asking").into_iter().collect();
    run.insert("engine".to_owned());
    assert_eq!(asking, run, "test binaries that ask, and those that the gate runs");
}

#[test]
fn the_gate_leaves_out_only_modules_without_a_real_directory() {
    let needles = ["Scratch", "tempfile", "tempdir", "common::io", "common::open", "::open("];
    let binaries = test_binaries("");
    let (_, engine) = binaries.iter().find(|(name, _)| name == "engine").unwrap();
    let left_out = list_of_the_gate("simulated");
    assert!(!left_out.is_empty());
    for module in left_out {
        let module = module.strip_suffix("::").unwrap();
        let (file, folder) = (format!("tests/{module}.rs"), Path::new("tests").join(module));
        let of_it = |path: &&PathBuf| path.ends_with(&file) || path.starts_with(&folder);
        assert!(engine.iter().any(|path| of_it(&path)), "{module} is no module");
        for path in engine.iter().filter(of_it) {
            let source = read(path);
            let found = needles.iter().find(|needle| source.contains(**needle));
            assert_eq!(found, None, "{} may write a log to a real directory", path.display());
        }
        // The harness takes a name for every module whose name ends so. A file of another folder
        // has another name here.
        let is_elsewhere = |path: &PathBuf| !path.starts_with("tests");
        let others = engine.iter().filter(|path| !of_it(path) && !is_elsewhere(path));
        for name in others.flat_map(|path| path.components()) {
            let name = name.as_os_str().to_string_lossy();
            let name = name.trim_end_matches(".rs");
            assert!(!name.ends_with(module), "{name} would be left out with {module}");
        }
    }
}

#[test]
fn sources_are_ascii() {
    for path in rust_files() {
        let source = read(&path);
        let bad = source.lines().position(|line| !line.is_ascii());
        assert_eq!(bad.map(|line| line + 1), None, "line of {}", path.display());
    }
}

#[test]
fn only_the_disk_touches_files() {
    let needles = ["std::fs", "rustix::fs", "fs::File", "OpenOptions", "MmapOptions"];
    let found = uses("src", &needles, |path| path.starts_with("src/disk"));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn only_one_file_starts_threads() {
    let needles = ["thread::spawn", "thread::Builder", "thread::scope"];
    let allowed = |path: &Path| {
        // The models are tests: they play the threads. The suite for storages reads beside a
        // commit.
        let tests = ["src/apply/models", "src/testing/storage"];
        path == Path::new("src/threads.rs") || tests.iter().any(|path_of| path.starts_with(path_of))
    };
    let found = uses("src", &needles, allowed);
    assert_eq!(found, Vec::<String>::new());
    let allowed = read("src/threads.rs");
    assert!(allowed.contains("thread::Builder"), "the file named here is the one");
}

/// Another directory would be tested over the default only, whatever `SPRAG_TEST_IO` asks for.
#[test]
fn every_directory_of_the_integration_tests_is_opened_over_the_back_end_that_is_asked_for() {
    let needle = concat!("PersistentConfig", "::new(");
    let found: Vec<_> = [files("tests", "rs"), files("crates/cli/tests", "rs")].concat();
    // One file makes the options, and the other tests the back-ends themselves.
    let apart = ["tests/common/io.rs", "tests/io_backends.rs"].map(Path::new);
    let mut seen = 0;
    for path in found {
        for line in read(&path).lines().filter(|line| line.contains(needle)) {
            let on_a_disk = !line.contains("\"simulated\"");
            assert!(!on_a_disk || apart.contains(&&*path), "{}: {}", path.display(), line.trim());
            seen += usize::from(on_a_disk);
        }
    }
    assert_eq!(seen, apart.len());
}

#[test]
fn nothing_is_left_to_be_done() {
    let needles = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("db", "g!(")];
    for path in rust_files() {
        let source = read(&path);
        assert!(!needles.iter().any(|needle| source.contains(needle)), "{}", path.display());
    }
}

/// GitHub's anchor of a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut followed = 0;
    for document in documents() {
        let text = read(&document);
        let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let defined = text.lines().filter_map(definition).map(|(_, target)| target);
        for target in inline.chain(defined) {
            if target.contains("://") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let to = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let shown = format!("{} in {}", target, document.display());
            assert!(root().join(&to).exists(), "{shown}");
            if !fragment.is_empty() {
                let target = read(&to);
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|heading| anchor(heading) == fragment), "{shown}");
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "{followed} links");
}

/// A line that says where a reference leads: `[ordering#reading]: ordering.md#reading`.
fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

/// The module of a page in the documentation of the crate is named as the page; `unsafe` is no name
/// of a module.
fn module_of(reference: &str) -> String {
    let (page, fragment) = reference.split_once('#').unwrap_or((reference, ""));
    let module = if page == "unsafe" { "unsafe_files" } else { page };
    let separator = if fragment.is_empty() { "" } else { "#" };
    format!("crate::docs::{module}{separator}{fragment}")
}

#[test]
fn references_between_pages_are_defined_for_the_repository_and_for_rustdoc() {
    let mut used = BTreeSet::new();
    for page in files("docs", "md") {
        let text = read(&page);
        let shown = page.display();
        let defined: BTreeMap<_, _> = text.lines().filter_map(definition).collect();
        let mut references = BTreeSet::new();
        for line in text.lines() {
            references.extend(line.split("][").skip(1).filter_map(|rest| rest.split(']').next()));
        }
        for reference in &references {
            let (page, fragment) = reference.split_once('#').unwrap_or((reference, ""));
            let separator = if fragment.is_empty() { "" } else { "#" };
            let target = format!("{page}.md{separator}{fragment}");
            assert_eq!(defined.get(reference), Some(&&*target), "[{reference}] in {shown}");
            used.insert((*reference).to_owned());
        }
        assert_eq!(defined.len(), references.len(), "{shown} defines what it does not use");
    }
    let links = read("docs/rustdoc-links.txt");
    let there: BTreeMap<_, _> = links.lines().filter_map(definition).collect();
    for reference in &used {
        let module = module_of(reference);
        assert_eq!(there.get(&**reference), Some(&&*module), "docs/rustdoc-links.txt");
    }
    assert_eq!(there.len(), used.len(), "docs/rustdoc-links.txt has a line too many");
}

#[test]
fn paths_named_in_documents_exist() {
    let folders = ["src/", "docs/", "benches/", "examples/", "crates/", ".ci/"];
    let mut followed = 0;
    for document in documents() {
        let text = read(&document);
        for word in backticked(&text) {
            let is_path = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path && folders.iter().any(|folder| word.starts_with(folder)) {
                assert!(root().join(word).exists(), "{word} in {}", document.display());
                followed += 1;
            }
        }
    }
    assert!(followed > 20, "{followed} paths");
}

#[test]
fn the_gate_runs_the_test_command_of_the_readme() {
    let readme = read("README.md");
    let commands: Vec<_> = readme.lines().filter(|line| line.starts_with("cargo test")).collect();
    assert_eq!(commands.len(), 1, "{commands:?}");
    assert!(commands[0].contains("--workspace"));
    let gate = read(".ci/run");
    assert!(gate.contains("grep -E '^cargo test' README.md"), "the gate takes it from there");
    let literal = gate.lines().filter(|line| line.trim_start().starts_with("cargo test"));
    assert_eq!(literal.count(), 0, "and has none of its own");
}

#[test]
fn the_example_of_the_readme_is_the_one_that_is_compiled() {
    let example = read("examples/basic.rs");
    let code: Vec<_> = example.lines().skip_while(|line| !line.starts_with("use ")).collect();
    let readme = read("README.md");
    let shown: Vec<_> = readme
        .lines()
        .skip_while(|line| *line != "```rust")
        .skip(1)
        .take_while(|line| *line != "```")
        .collect();
    assert_eq!(shown, code);
}
