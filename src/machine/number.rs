//! Decimal numbers as values, which an increment reads and writes.

/// Length of the longest decimal `i64`, with its sign.
pub(crate) const DECIMAL_BYTES_MAX: usize = 20;

/// Parses the only decimal form of an `i64`, by the rules of Redis: an optional minus sign, digits
/// without leading zeros, nothing else. `-0` is no number. Returns `None` for any other text, or a
/// number that does not fit.
pub(crate) fn parse(text: &[u8]) -> Option<i64> {
    if text == b"0" {
        return Some(0);
    }
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    // Count downwards, because `i64::MIN` has no positive counterpart.
    let below_zero = digits.iter().try_fold(0i64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_sub(digit)
    })?;
    if negative { Some(below_zero) } else { below_zero.checked_neg() }
}

/// The decimal form of a number, on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Decimal {
    /// The text begins at `start`, so that digits are written from the last to the first.
    bytes: [u8; DECIMAL_BYTES_MAX],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(number: i64) -> Self {
        let mut decimal = Self { bytes: [b'0'; DECIMAL_BYTES_MAX], start: DECIMAL_BYTES_MAX };
        let mut rest = number.unsigned_abs();
        loop {
            decimal.push_front(b'0' + (rest % 10).to_le_bytes()[0]);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            decimal.push_front(b'-');
        }
        decimal
    }

    /// Adds a byte in front. At most 19 digits and a sign are added, so `start` does not pass 0.
    fn push_front(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_one_decimal_form_of_an_i64_is_a_number() {
        let numbers = [
            ("0", 0),
            ("7", 7),
            ("-1", -1),
            ("10", 10),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, number) in numbers {
            assert_eq!(parse(text.as_bytes()), Some(number), "{text}");
        }
        let others = [
            "",
            "-",
            "+1",
            "-0",
            "00",
            "01",
            "-01",
            " 1",
            "1 ",
            "1\0",
            "1.0",
            "1e3",
            "0x1",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "99999999999999999999999",
            "a",
        ];
        for text in others {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_number_is_written_as_the_standard_library_writes_it() {
        for number in [0, 1, -1, 9, 10, -10, 99, 100, i64::MAX, i64::MIN, i64::MIN + 1] {
            assert_eq!(Decimal::new(number).as_bytes(), number.to_string().as_bytes());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_reads_back(number: i64) {
            prop_assert_eq!(parse(Decimal::new(number).as_bytes()), Some(number));
        }

        #[test]
        fn what_reads_is_exactly_what_would_be_written(text in "[-+ 0-9]{0,4}") {
            let expected = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            prop_assert_eq!(parse(text.as_bytes()), expected);
        }
    }
}
