//! `SET` with options, by the rules of Redis.

use super::stream::decimal;

/// Condition of the put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Condition {
    Always,
    /// NX
    IfAbsent,
    /// XX
    IfPresent,
}

/// Options of a `SET`. GET asks only for a reply, and KEEPTTL keeps an expiry, which no key has
/// here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Options {
    pub(super) condition: Condition,
    /// Whether the key is to expire.
    pub(super) expires: bool,
}

impl Options {
    /// Parses the words after key and value; `None` if a server would refuse them, or if they are
    /// of a later version.
    pub(super) fn parse(words: &[&[u8]]) -> Option<Self> {
        let mut options = Self { condition: Condition::Always, expires: false };
        let mut keeps = false;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.to_ascii_uppercase().as_slice() {
                b"NX" if options.condition != Condition::IfPresent => {
                    options.condition = Condition::IfAbsent;
                }
                b"XX" if options.condition != Condition::IfAbsent => {
                    options.condition = Condition::IfPresent;
                }
                b"GET" => {}
                b"KEEPTTL" if !options.expires => keeps = true,
                b"EX" | b"PX" | b"EXAT" | b"PXAT" if !options.expires && !keeps => {
                    words.next().and_then(|time| decimal(time)).filter(|time| *time > 0)?;
                    options.expires = true;
                }
                _ => return None,
            }
        }
        Some(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_set_are_those_of_redis() {
        let parse = |text: &str| {
            let words: Vec<_> = text.split_whitespace().map(str::as_bytes).collect();
            Options::parse(&words).map(|options| (options.condition, options.expires))
        };
        assert_eq!(parse("KEEPTTL"), Some((Condition::Always, false)));
        assert_eq!(parse("nx get keepttl"), Some((Condition::IfAbsent, false)));
        assert_eq!(parse("XX EX 10"), Some((Condition::IfPresent, true)));
        assert_eq!(parse("PXAT 1700000000000"), Some((Condition::Always, true)));
        for refused in
            ["NX XX", "EX", "EX 0", "EX x", "EX 1 PX 1", "KEEPTTL EX 1", "EX 1 KEEPTTL", "IFEQ 1"]
        {
            assert_eq!(parse(refused), None, "{refused}");
        }
    }
}
