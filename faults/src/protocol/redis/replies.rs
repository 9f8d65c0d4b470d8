//! Replies out of bytes, RESP2 and RESP3, byte by byte and without holding any.

/// Deepest nesting followed.
const DEPTH_MAX: usize = 64;
/// Most elements of one aggregate.
const ELEMENTS_MAX: u64 = 1 << 32;
/// How much of a reply's beginning is kept.
const KEPT_BYTES_MAX: usize = 64;

/// What a byte was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Byte {
    /// The first of a value at the top, with its type byte.
    First(u8),
    /// One within a value.
    Within,
    /// The last of a value at the top.
    Last,
    /// The first and only bytes of a value cannot be one: the stream is not understood.
    Garbage,
}

/// Follows the server's bytes.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// Values left at each depth; the outermost is 1 while a value is under way.
    left: Vec<u64>,
    state: State,
    /// Type byte of the value at the top.
    kind: u8,
    /// The beginning of the first simple or bulk value's text.
    kept: Vec<u8>,
    kept_is_over: bool,
    /// The first line of the value at the top was a null.
    null: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// Before a value's type byte.
    #[default]
    Kind,
    /// In a line of text that ends the value.
    Text,
    /// In a line with a number: type, value so far, negative, digits seen.
    Number { kind: u8, number: u64, negative: bool, digits: u8 },
    /// In a bulk string and its line end.
    Bulk(u64),
}

impl Replies {
    /// Whether the last value has passed as a whole.
    pub(super) fn is_between(&self) -> bool {
        self.left.is_empty()
    }

    /// Type byte of the value that is passing, or has passed last.
    pub(super) fn kind(&self) -> u8 {
        self.kind
    }

    /// Its text, if it has one: the beginning of the first line or bulk string in it.
    pub(super) fn text(&self) -> &[u8] {
        &self.kept
    }

    /// Whether it says that there is nothing.
    pub(super) fn is_null(&self) -> bool {
        self.null
    }

    /// How many of the coming bytes lie within a bulk string's body, and can be passed at once.
    pub(super) fn bulk_ahead(&self) -> u64 {
        match self.state {
            // The text of a short one may be wanted.
            State::Bulk(left) if self.kept_is_over || self.kept.len() >= KEPT_BYTES_MAX => left.saturating_sub(2),
            _ => 0,
        }
    }

    /// Passes over bytes within a bulk string; `count` is at most [`Self::bulk_ahead`].
    pub(super) fn skip(&mut self, count: u64) {
        if let State::Bulk(left) = self.state {
            self.state = State::Bulk(left.saturating_sub(count));
        }
    }

    pub(super) fn step(&mut self, byte: u8) -> Byte {
        match self.state {
            State::Kind => self.start_value(byte),
            State::Text => {
                if byte == b'\n' {
                    self.kept_is_over = true;
                    return self.end_value();
                }
                self.keep(byte);
                Byte::Within
            }
            State::Number { kind, number, negative, digits } => self.number(byte, kind, number, negative, digits),
            State::Bulk(left) => {
                if left > 2 {
                    self.keep(byte);
                }
                self.state = State::Bulk(left - 1);
                if left == 1 {
                    self.kept_is_over = true;
                    return self.end_value();
                }
                Byte::Within
            }
        }
    }

    fn start_value(&mut self, kind: u8) -> Byte {
        let first = self.left.is_empty();
        self.state = match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => State::Text,
            b'$' | b'!' | b'=' | b'*' | b'~' | b'%' | b'>' | b'|' => {
                State::Number { kind, number: 0, negative: false, digits: 0 }
            }
            _ => return Byte::Garbage,
        };
        if !first {
            return Byte::Within;
        }
        self.left.push(1);
        self.kind = kind;
        self.kept.clear();
        self.kept_is_over = false;
        self.null = kind == b'_';
        Byte::First(kind)
    }

    fn number(&mut self, byte: u8, kind: u8, number: u64, negative: bool, digits: u8) -> Byte {
        match byte {
            b'-' if digits == 0 && !negative => {
                self.state = State::Number { kind, number, negative: true, digits };
                Byte::Within
            }
            b'0'..=b'9' if digits < 18 => {
                let number = number * 10 + u64::from(byte - b'0');
                self.state = State::Number { kind, number, negative, digits: digits + 1 };
                Byte::Within
            }
            b'\r' if digits > 0 => Byte::Within,
            b'\n' if digits > 0 => self.numbered(kind, number, negative),
            _ => Byte::Garbage,
        }
    }

    fn numbered(&mut self, kind: u8, number: u64, negative: bool) -> Byte {
        if negative {
            self.null |= self.left.len() == 1;
            return self.end_value();
        }
        match kind {
            b'$' | b'!' | b'=' => {
                self.state = State::Bulk(number + 2);
                return Byte::Within;
            }
            _ if number > ELEMENTS_MAX || self.left.len() >= DEPTH_MAX => return Byte::Garbage,
            b'%' => self.left.push(2 * number),
            // Attributes stand before the value they belong to.
            b'|' => {
                if let Some(left) = self.left.last_mut() {
                    *left += 1;
                }
                self.left.push(2 * number);
            }
            _ => self.left.push(number),
        }
        self.state = State::Kind;
        if number > 0 {
            return Byte::Within;
        }
        self.left.pop();
        self.end_value()
    }

    fn end_value(&mut self) -> Byte {
        self.state = State::Kind;
        while let Some(left) = self.left.last_mut() {
            *left -= 1;
            if *left > 0 {
                return Byte::Within;
            }
            self.left.pop();
        }
        Byte::Last
    }

    fn keep(&mut self, byte: u8) {
        if !self.kept_is_over && self.kept.len() < KEPT_BYTES_MAX && byte != b'\r' {
            self.kept.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many values at the top, and the text of the last; none if not understood.
    fn read(bytes: &[u8]) -> Option<(usize, String)> {
        let mut replies = Replies::default();
        let mut values = 0;
        for byte in bytes {
            match replies.step(*byte) {
                Byte::Last => values += 1,
                Byte::Garbage => return None,
                Byte::First(_) | Byte::Within => {}
            }
        }
        replies.is_between().then(|| (values, String::from_utf8_lossy(replies.text()).into_owned()))
    }

    #[test]
    fn each_type_of_both_versions_is_one_value() {
        for text in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":12\r\n",
            "$5\r\nab\r\nc\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*3\r\n:1\r\n*2\r\n+a\r\n$1\r\nb\r\n_\r\n",
            "%1\r\n+k\r\n*1\r\n:1\r\n",
            "%0\r\n",
            "~2\r\n#t\r\n,1.5\r\n",
            "(123456789012345678901234567890\r\n",
            "=7\r\ntxt:abc\r\n",
            "!5\r\nERR x\r\n",
            ">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n",
            "|1\r\n+ttl\r\n:3\r\n+OK\r\n",
            "*1\r\n|1\r\n+ttl\r\n:3\r\n+OK\r\n",
            "|0\r\n+OK\r\n",
        ] {
            assert_eq!(read(text.as_bytes()).map(|(values, _)| values), Some(1), "{text:?}");
        }
    }

    #[test]
    fn the_beginning_of_the_text_is_kept() {
        assert_eq!(read(b"-OOM command not allowed\r\n").expect("one").1, "OOM command not allowed");
        assert_eq!(read(b"$3\r\nabc\r\n").expect("one").1, "abc");
    }

    #[test]
    fn what_is_no_reply_is_garbage() {
        for text in ["hello", "$x\r\n", "*\r\n", "$99999999999999999999\r\n", "$?\r\n"] {
            assert_eq!(read(text.as_bytes()), None, "{text:?}");
        }
    }
}
