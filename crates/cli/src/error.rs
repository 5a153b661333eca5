//! How a failure becomes one line on stderr.

use std::error::Error;
use std::io;
use std::path::Path;

use sprag::error::OpenError;

/// What every command ends with.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A failure to open `dir`, in the words of the command and not of the library.
pub(crate) fn opening(dir: &Path) -> impl Fn(OpenError) -> Box<dyn Error> {
    let dir = dir.display().to_string();
    move |error| match error {
        OpenError::Missing { path } => format!("{path}: no such directory").into(),
        // The output's failure, not the directory's.
        OpenError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => source.into(),
        error => {
            let text = error.to_string();
            if text.starts_with(&dir) { text.into() } else { format!("{dir}: {text}").into() }
        }
    }
}

/// Any other failure, with what it was about before it.
pub(crate) fn about<E: Error>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Box<dyn Error> {
    move |error| format!("{what}: {}", one_line(&error)).into()
}

/// The error and its causes, as far as they say something new.
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
    line.replace('\n', " ")
}

/// Whether the reader of our output has gone.
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
