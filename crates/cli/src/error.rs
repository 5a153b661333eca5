//! Failures of commands, and their one line on stderr.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;
use sprag::StorageError;
use sprag::error::{Corrupt, OpenError, Poison, SnapshotError};

/// Result of every command.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Kind of a failure, for programs. The names are those of the JSON object.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The call is wrong, independent of what the files hold.
    Usage,
    /// A file or directory is missing.
    Missing,
    /// The key has no value.
    NoValue,
    /// The condition of a `cas` does not hold, or the state rejected a command.
    Rejected,
    /// Another process has the directory open.
    Locked,
    /// Durable data is damaged.
    Damaged,
    DiskFull,
    Permission,
    /// The data to read is wrong: an input, or a file that is no snapshot.
    Input,
    /// The system refused to read or write.
    Io,
    /// Any other failure.
    Failed,
}

/// A failure in one sentence, and its details for programs.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    place: Place,
}

/// Kind and place of a failure. Unknown parts are `None`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Place {
    pub(crate) kind: Option<Kind>,
    pub(crate) file: Option<String>,
    pub(crate) offset: Option<u64>,
    pub(crate) index: Option<u64>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { message: message.into(), place: Place { kind: Some(kind), ..Place::default() } }
    }

    /// A wrong call, independent of what the files hold: exit status 2.
    pub(crate) fn usage(message: impl Into<String>) -> Box<dyn Error> {
        Self::new(Kind::Usage, message).into()
    }

    /// Adds the file that the failure is about.
    pub(crate) fn of_file(mut self, file: impl fmt::Display) -> Self {
        self.place.file = Some(file.to_string());
        self
    }

    /// Damage at a place.
    pub(crate) fn damage(message: String, file: &str, offset: u64, index: Option<u64>) -> Self {
        let file = Some(file.to_owned());
        let place = Place { kind: Some(Kind::Damaged), file, offset: Some(offset), index };
        Self { message, place }
    }

    /// An error in an input, at an offset.
    pub(crate) fn input(message: String, file: &str, offset: u64) -> Self {
        let (file, offset) = (Some(file.to_owned()), Some(offset));
        Self { message, place: Place { kind: Some(Kind::Input), file, offset, index: None } }
    }

    /// A message about `error`, with the kind and place found in `error`.
    pub(crate) fn about(message: String, error: &(dyn Error + 'static)) -> Box<dyn Error> {
        Self { message, place: Place::of(error) }.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

impl Place {
    /// The kind and place that an error and its causes tell.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut place = Self::default();
        let mut next = Some(error);
        while let Some(error) = next {
            place.add(error);
            next = error.source();
        }
        place
    }

    fn add(&mut self, error: &(dyn Error + 'static)) {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            self.fill(failure.place.clone());
        } else if let Some(error) = error.downcast_ref::<OpenError>() {
            self.add_opening(error);
        } else if let Some(error) = error.downcast_ref::<SnapshotError>() {
            match error {
                SnapshotError::Corrupt { file, offset, .. } => {
                    self.fill(Self::damaged(file, *offset, None));
                }
                SnapshotError::Io { file, source, .. } => self.fill(Self::io(Some(file), source)),
                SnapshotError::NotASnapshot { file }
                | SnapshotError::UnknownVersion { file, .. } => {
                    let file = Some(file.clone());
                    self.fill(Self { kind: Some(Kind::Input), file, ..Self::default() });
                }
                _ => {}
            }
        } else if let Some(error) = error.downcast_ref::<sprag_fjall::OpenError>() {
            use sprag_fjall::OpenError as E;
            match error {
                E::Locked { path } => self.fill(Self::kind_of(Kind::Locked, path.display())),
                E::NoParent { path } => self.fill(Self::kind_of(Kind::Missing, path.display())),
                E::Damaged { path, .. } => self.fill(Self::kind_of(Kind::Damaged, path.display())),
                E::Io { path, source, .. } => {
                    self.fill(Self::io(Some(&path.display().to_string()), source));
                }
                _ => {}
            }
        } else if let Some(error) = error.downcast_ref::<sprag_redb::OpenError>() {
            use sprag_redb::OpenError as E;
            match error {
                E::Locked { name } => self.fill(Self::kind_of(Kind::Locked, name)),
                E::NoParent { path } => self.fill(Self::kind_of(Kind::Missing, path.display())),
                E::Damaged { name, .. } => self.fill(Self::kind_of(Kind::Damaged, name)),
                E::Io { name, source, .. } => self.fill(Self::io(Some(name), source)),
                _ => {}
            }
        } else if let Some(StorageError::Corrupt { .. }) = error.downcast_ref() {
            self.fill(Self { kind: Some(Kind::Damaged), ..Self::default() });
        } else if let Some(Poison::Io { file, source, .. }) = error.downcast_ref() {
            self.fill(Self::io(Some(file), source));
        } else if let Some(Corrupt { file, offset, index, .. }) = error.downcast_ref() {
            self.fill(Self::damaged(file, *offset, *index));
        } else if let Some(error) = error.downcast_ref::<io::Error>() {
            self.fill(Self::io(None, error));
        }
    }

    fn kind_of(kind: Kind, file: impl fmt::Display) -> Self {
        Self { kind: Some(kind), file: Some(file.to_string()), ..Self::default() }
    }

    fn add_opening(&mut self, error: &OpenError) {
        let of = |kind, file: &String| Self::kind_of(kind, file);
        self.fill(match error {
            OpenError::Missing { path } | OpenError::MissingParent { parent: path, .. } => {
                of(Kind::Missing, path)
            }
            OpenError::Locked { path, .. } => of(Kind::Locked, path),
            OpenError::ForeignOwner { path, .. } | OpenError::WritableByOthers { path, .. } => {
                of(Kind::Permission, path)
            }
            OpenError::Io { file, source, .. } => Self::io(Some(file), source),
            OpenError::Torn { file, offset, .. } => {
                Self { offset: Some(*offset), ..of(Kind::Damaged, file) }
            }
            OpenError::Config { .. } => Self { kind: Some(Kind::Usage), ..Self::default() },
            OpenError::Corrupt(damage) => return self.add(damage),
            OpenError::Snapshot(error) => return self.add(error),
            OpenError::Replay(poison) => return self.add(poison),
            _ => Self::default(),
        });
    }

    fn damaged(file: &str, offset: u64, index: Option<u64>) -> Self {
        let file = Some(file.to_owned());
        Self { kind: Some(Kind::Damaged), file, offset: Some(offset), index }
    }

    fn io(file: Option<&String>, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::Missing,
            io::ErrorKind::PermissionDenied => Kind::Permission,
            _ if is_full(error) => Kind::DiskFull,
            _ => Kind::Io,
        };
        Self { kind: Some(kind), file: file.cloned(), ..Self::default() }
    }

    /// Fills the parts that are not known yet from `other`; the outer error's parts take
    /// precedence.
    fn fill(&mut self, other: Self) {
        self.kind = self.kind.or(other.kind);
        self.offset = self.offset.or(other.offset.filter(|_| self.file.is_none()));
        self.index = self.index.or(other.index);
        self.file = self.file.take().or(other.file);
    }
}

/// Whether the disk has no room for the write.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Wraps a failure to open `dir` in the words of the command instead of the library's.
pub(crate) fn opening(dir: &Path) -> impl Fn(OpenError) -> Box<dyn Error> {
    let dir = dir.display().to_string();
    move |error| match error {
        OpenError::Missing { path } | OpenError::MissingParent { parent: path, .. } => {
            Failure::new(Kind::Missing, format!("{path}: no such directory")).of_file(path).into()
        }
        // A broken pipe is a failure of the output, not of the directory.
        OpenError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => source.into(),
        error => {
            let text = error.to_string();
            let text = if text.starts_with(&dir) { text } else { format!("{dir}: {text}") };
            Failure::about(text, &error)
        }
    }
}

/// Wraps any other failure; the message begins with `what`.
pub(crate) fn about<E: Error + 'static>(
    what: impl std::fmt::Display,
) -> impl FnOnce(E) -> Box<dyn Error> {
    move |error| Failure::about(format!("{what}: {}", one_line(&error)), &error)
}

/// Wraps a failure of reading or writing a file with the file's path.
pub(crate) fn about_file(file: &Path) -> impl FnOnce(io::Error) -> Box<dyn Error> {
    let file = file.display().to_string();
    move |error| {
        let place = Place::io(Some(&file), &error);
        Failure { message: format!("{file}: {error}"), place }.into()
    }
}

/// The object that `--json` prints for a failure.
#[derive(Serialize)]
pub(crate) struct FailureJson<'a> {
    error: &'a str,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

impl<'a> FailureJson<'a> {
    pub(crate) fn new(error: &'a str, place: Place) -> Self {
        let Place { kind, file, offset, index } = place;
        Self { error, kind: kind.unwrap_or(Kind::Failed), file, offset, index }
    }
}

/// The error and its causes in one line, without repetitions.
pub(crate) fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    plain(&line)
}

/// The text without line ends and control characters that a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => plain.push(' '),
            letter if letter.is_control() => plain.extend(letter.escape_default()),
            letter => plain.push(letter),
        }
    }
    plain
}

/// Whether the error says that the reader of our output has gone.
pub(crate) fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer {
        says_inner: bool,
        source: io::Error,
    }

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(if self.says_inner { "outer: inner" } else { "outer" })
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.source)
        }
    }

    #[test]
    fn a_chain_is_one_line_and_says_nothing_twice() {
        for says_inner in [false, true] {
            let error = Outer { says_inner, source: io::Error::other("inner") };
            assert_eq!(one_line(&error), "outer: inner");
        }
        let error = io::Error::other("two\nlines");
        assert_eq!(one_line(&error), "two lines");
        assert_eq!(one_line(&io::Error::other("a\u{1b}[2Jb\u{9b}")), "a\\u{1b}[2Jb\\u{9b}");
    }

    #[test]
    fn what_a_program_can_tell_is_taken_from_the_causes() {
        let source = || io::Error::from(io::ErrorKind::StorageFull);
        let error =
            about("x")(OpenError::Io { action: "a", file: "f".to_owned(), source: source() });
        let place = Place::of(&*error);
        assert_eq!((place.kind, place.file.as_deref()), (Some(Kind::DiskFull), Some("f")));
        let (file, what) = ("s".to_owned(), "rot");
        let damage = Corrupt { file, offset: 64, index: Some(7), what };
        let place = Place::of(&*opening(Path::new("d"))(damage.into()));
        assert_eq!(place, Place::damaged("s", 64, Some(7)));
        assert_eq!(Place::of(&*Failure::usage("no")).kind, Some(Kind::Usage));
        assert_eq!(Place::of(&io::Error::other("x")).kind, Some(Kind::Io));
        let json = serde_json::to_value(FailureJson::new("e", place)).unwrap_or_default();
        assert_eq!(
            json,
            serde_json::json!({
                "error": "e", "kind": "damaged", "file": "s", "offset": 64, "index": 7
            })
        );
    }

    #[test]
    fn a_broken_pipe_is_found_behind_other_errors() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&broken()));
        assert!(is_broken_pipe(&Outer { says_inner: false, source: broken() }));
        let other = Outer { says_inner: false, source: io::Error::other("inner") };
        assert!(!is_broken_pipe(&other));
    }
}
