//! Plain words: these tests count riddling words, item docs with an odd beginning, long sentences,
//! and wide lines. Each number may only fall.

use std::path::PathBuf;

use super::{documents, files, read, rust_files};

/// Words and phrases that hide who acts, or what is meant.
const RIDDLES: &[&str] = &[
    "anybody",
    "anyone",
    "everybody",
    "everyone",
    "nobody",
    "of its own accord",
    "one's own",
    "so too",
    "somebody",
    "someone",
    "the same of it",
    "whoever",
    "whom-ever",
    "whomever",
    "whose ever",
];

/// First words of an item's doc that leave the item unnamed: a doc begins with a noun or a verb.
const ODD_FIRST_WORDS: &[&str] = &[
    "After", "Also", "Among", "And", "As", "At", "Before", "Behind", "Beside", "Between", "But",
    "By", "Else", "From", "How", "In", "It", "Its", "Likewise", "Nor", "Not", "Of", "On", "Or",
    "Over", "Since", "So", "Than", "That", "Their", "Them", "These", "They", "Those", "To",
    "Under", "Until", "What", "When", "Where", "Which", "While", "Who", "Whose", "Why", "With",
    "Without",
];

/// Columns of a line with a comment at most.
const COLUMNS_MAX: usize = 100;

/// Words of a sentence at most.
const SENTENCE_WORDS_MAX: usize = 25;

/// Number of finds that are left of each kind. A number may only fall: lower it with the text.
const LEFT: Counts = Counts { riddles: 0, odd_docs: 0, long_sentences: 0, wide_lines: 0 };

#[derive(Debug, Default)]
struct Counts {
    riddles: usize,
    odd_docs: usize,
    long_sentences: usize,
    wide_lines: usize,
}

/// All files with prose, but this one.
fn texts() -> Vec<PathBuf> {
    let mut found = rust_files();
    for folder in ["docs", "crates", "fuzz", "tests", "benches", ".ci"] {
        for extension in ["md", "toml", "sh"] {
            found.extend(files(folder, extension));
        }
    }
    found.extend(files("src", "md"));
    found.extend(
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Cargo.toml", "deny.toml", ".ci/run"]
            .map(PathBuf::from),
    );
    found.retain(|path| !path.ends_with("tests/tidy/words.rs") && !path.starts_with("fuzz/corpus"));
    assert!(found.len() > 300, "the walk finds the texts: {}", found.len());
    found
}

/// The riddles of a text. Identifiers do not count, because they hold their words together.
fn riddles(text: &str) -> Vec<&'static str> {
    let mut plain = String::from(" ");
    for line in text.lines() {
        let line = line.trim_start_matches([' ', '/', '!', '#']);
        let of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '\'');
        plain.extend(line.chars().map(|c| if of_word(c) { c.to_ascii_lowercase() } else { ' ' }));
        plain.push(' ');
    }
    let plain = format!(" {} ", plain.split_whitespace().collect::<Vec<_>>().join(" "));
    let count = |riddle: &&str| {
        let found = plain.matches(&format!(" {riddle} ")).count();
        found + plain.matches(&format!(" {riddle}'s ")).count()
    };
    RIDDLES.iter().flat_map(|riddle| vec![*riddle; count(riddle)]).collect()
}

/// The comments of a source file: prefix and text of each line, and an empty text between blocks.
fn comment_lines(source: &str) -> Vec<(&str, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in source.lines().map(str::trim) {
        let prefix = ["///", "//!", "//"].into_iter().find(|prefix| line.starts_with(prefix));
        let text = prefix.map_or("", |prefix| line[prefix.len()..].trim());
        fenced = prefix.is_some() && fenced != text.starts_with("```");
        let prose = !fenced && !text.starts_with(['`', '|', '#', '[']) || text.starts_with("[`");
        lines.push((prefix.unwrap_or(""), if prose { text } else { "" }));
    }
    lines
}

/// The paragraphs of the comments, each with its prefix, and whether it begins its block.
fn paragraphs(source: &str) -> Vec<(&str, bool, String)> {
    let mut found: Vec<(&str, bool, String)> = Vec::new();
    let (mut before, mut open) = ("", false);
    for (prefix, text) in comment_lines(source) {
        let begins_block = prefix != before;
        let is_item = text.starts_with("- ") || text.starts_with("* ");
        match found.last_mut() {
            _ if prefix.is_empty() || text.is_empty() => open = false,
            Some((_, _, paragraph)) if open && !begins_block && !is_item => {
                paragraph.push(' ');
                paragraph.push_str(text);
            }
            _ => {
                found.push((prefix, begins_block, text.to_owned()));
                open = true;
            }
        }
        before = prefix;
    }
    found
}

/// The item docs that begin with a word that leaves the item unnamed.
fn odd_docs(source: &str) -> Vec<String> {
    let odd = |(prefix, begins, text): &(&str, bool, String)| {
        let first = text.split(|c: char| !c.is_alphanumeric()).next();
        *begins && *prefix == "///" && first.is_some_and(|word| ODD_FIRST_WORDS.contains(&word))
    };
    paragraphs(source).into_iter().filter(odd).map(|(_, _, text)| text).collect()
}

/// The sentences of these paragraphs that have too many words. A sign by itself is no word.
fn long_sentences(paragraphs: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut found = Vec::new();
    for text in paragraphs {
        let mut sentence = Vec::new();
        for word in text.split_whitespace() {
            if word.contains(char::is_alphanumeric) {
                sentence.push(word.to_owned());
            }
            if word.trim_end_matches(['"', ')', '*', '`']).ends_with(['.', '!', '?']) {
                found.push(std::mem::take(&mut sentence));
            }
        }
        found.push(sentence);
    }
    found.retain(|sentence: &Vec<_>| sentence.len() > SENTENCE_WORDS_MAX);
    found.into_iter().map(|sentence| sentence.join(" ")).collect()
}

fn long_comments(source: &str) -> Vec<String> {
    long_sentences(paragraphs(source).into_iter().map(|(_, _, text)| text))
}

/// The lines with prose of a comment that are too wide. A row of a table cannot be broken.
fn wide_lines(source: &str) -> Vec<String> {
    let comments = comment_lines(source);
    let is_wide = |(line, (_, text)): &(&str, (&str, &str))| {
        !text.is_empty() && text.contains(' ') && line.chars().count() > COLUMNS_MAX
    };
    let wide = source.lines().zip(comments).filter(is_wide);
    wide.map(|(line, _)| line.to_owned()).collect()
}

/// The lines of a page: the text of each line with prose, and an empty text for all else. Tables,
/// code, headings, pictures and the targets of links are no prose.
fn page_lines(page: &str) -> Vec<&str> {
    let mut fenced = false;
    let prose = |line| {
        let text = str::trim(line);
        let is_fence = text.starts_with("```");
        let is_code = fenced || is_fence;
        fenced ^= is_fence;
        let is_target = text.starts_with('[') && text.contains("]: ");
        let is_other = text.starts_with(['|', '#', '<']) || text.starts_with("![");
        if is_code || is_target || is_other { "" } else { text }
    };
    page.lines().map(prose).collect()
}

/// The paragraphs of a page, each item of a list by itself. A piece of code is one word.
fn page_paragraphs(page: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::<String>::new(), false);
    for text in page_lines(page) {
        let number = text.split_once(['.', ')']).map_or("", |(number, _)| number);
        let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
        let is_item = text.starts_with("- ") || text.starts_with("* ") || is_number;
        match found.last_mut() {
            Some(paragraph) if open && !text.is_empty() && !is_item => {
                paragraph.push(' ');
                paragraph.push_str(text);
            }
            _ if !text.is_empty() => found.push(text.to_owned()),
            _ => {}
        }
        open = !text.is_empty();
    }
    let in_code = |(at, part): (usize, &str)| match at % 2 {
        0 => part.to_owned(),
        _ => part.replace(' ', "_"),
    };
    let pieces = |text: String| text.split('`').enumerate().map(in_code).collect::<String>();
    found.into_iter().map(pieces).collect()
}

fn long_page_sentences(page: &str) -> Vec<String> {
    long_sentences(page_paragraphs(page))
}

/// The lines with prose of a page that are too wide.
fn wide_page_lines(page: &str) -> Vec<String> {
    let is_wide =
        |(line, text): &(&str, &str)| !text.is_empty() && line.chars().count() > COLUMNS_MAX;
    let wide = page.lines().zip(page_lines(page)).filter(is_wide);
    wide.map(|(line, _)| line.to_owned()).collect()
}

fn only_falls(kind: &str, found: &[String], left: usize) {
    let shown = found.join("\n");
    assert!(found.len() <= left, "{} {kind}, more than {left}:\n{shown}", found.len());
    assert!(found.len() == left, "{} {kind}, not {left}: lower the number in LEFT", found.len());
}

/// Returns what `count` finds in these files, each with the name of its file.
fn all(paths: Vec<PathBuf>, count: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let of_file = |path: PathBuf| {
        let found = count(&read(&path)).into_iter();
        found.map(move |found| format!("{}: {found}", path.display())).collect::<Vec<_>>()
    };
    paths.into_iter().flat_map(of_file).collect()
}

#[test]
fn no_text_speaks_in_riddles() {
    let found = all(texts(), |text| riddles(text).into_iter().map(str::to_owned).collect());
    only_falls("riddles", &found, LEFT.riddles);
}

#[test]
fn an_items_doc_begins_with_a_noun_or_a_verb() {
    only_falls("item docs", &all(rust_files(), odd_docs), LEFT.odd_docs);
}

#[test]
fn a_sentence_of_a_comment_is_short() {
    only_falls("long sentences", &all(rust_files(), long_comments), LEFT.long_sentences);
}

#[test]
fn a_line_of_a_comment_is_narrow() {
    only_falls("wide lines", &all(rust_files(), wide_lines), LEFT.wide_lines);
}

#[test]
fn a_sentence_of_a_page_is_short() {
    assert_eq!(all(documents(), long_page_sentences), Vec::<String>::new());
}

#[test]
fn a_line_of_a_page_is_narrow() {
    assert_eq!(all(documents(), wide_page_lines), Vec::<String>::new());
}

#[test]
fn the_counts_find_what_they_look_for() {
    let text =
        "/// For whoever\n/// reads: so\n/// too nobody. Somebody's log.\nfn nobody_waits() {}";
    assert_eq!(riddles(text), ["nobody", "so too", "somebody", "whoever"]);
    assert_eq!(riddles("A caller reads its own log; so does the tool."), Vec::<&str>::new());

    let source = "/// Of one that waits.\nfn one() {}\n\n/// Waits.\n///\n/// In turn.\nfn two() {}\n// In turn.\n";
    assert_eq!(odd_docs(source), ["Of one that waits."]);

    let words = |count: usize| vec!["word"; count].join(" ");
    let comment = |words: String| {
        format!("    // {}\n    fn one() {{}}\n", words.replacen(' ', "\n    // ", 1))
    };
    assert_eq!(long_comments(&comment(words(26))).len(), 1);
    assert_eq!(long_comments(&comment(words(25))).len(), 0);
    assert_eq!(long_comments(&comment(format!("{}. {}", words(20), words(20)))).len(), 0);
    assert_eq!(long_comments(&format!("let text = \"{}\";", words(30))).len(), 0);

    let line = |words| format!("/// {}{words}", " word".repeat(18));
    assert_eq!((line("").len(), wide_lines(&line(" words")).len()), (94, 0));
    assert_eq!(wide_lines(&line(" and a word")).len(), 1);
    assert_eq!(wide_lines(&format!("/// | {} |", "word ".repeat(20))).len(), 0);

    assert_eq!(long_page_sentences(&words(26)).len(), 1);
    assert_eq!(long_page_sentences(&format!("{}:\n\n- {0}\n- {0}\n1. {0}", words(20))).len(), 0);
    assert_eq!(long_page_sentences(&format!("{}\n{}", words(20), words(6))).len(), 1);
    assert_eq!(long_page_sentences(&format!("{} `{0}` - +", words(20))).len(), 0);
    let no_prose = format!("# {0}\n| {0} |\n```\n{0}\n```\n[a]: {0}", words(26));
    assert_eq!(long_page_sentences(&no_prose), Vec::<String>::new());

    let wide = "word ".repeat(21);
    assert_eq!(wide_page_lines(&format!("{wide}\n```sh\n{wide}\n```\n{wide}")).len(), 2);
    assert_eq!(wide_page_lines(&format!("| {wide} |\n# {wide}\n[a]: {wide}")).len(), 0);
}
