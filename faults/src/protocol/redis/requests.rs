//! Commands out of bytes: arrays of bulk strings, and commands typed on a line.

use bytes::BytesMut;

use super::command::RedisOperation;

/// How much of a command is held back at most until its key is known.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// How much of each word is read.
const WORD_BYTES_MAX: usize = 512;
/// Longest line before the words, bytes; as the server itself has it.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Most words of a command; as the server itself has it.
const WORDS_MAX: u64 = 1_048_576;
/// Longest word; as the server itself has it.
const BULK_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What lies ahead.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A command begins; its bytes are not taken yet.
    Start(Vec<Vec<u8>>),
    /// Its last byte has been taken.
    End,
    /// What follows is no command.
    Garbage,
}

/// Cuts the client's bytes into commands.
#[derive(Debug, Default)]
pub(super) struct Requests {
    buffer: BytesMut,
    passed: usize,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Between,
    /// Within a command, before a word's length; words left.
    Word(u64),
    /// Within a word or its line end; bytes and then words left.
    Bytes(u64, u64),
}

impl Requests {
    pub(super) fn push(&mut self, bytes: BytesMut) {
        if self.buffer.is_empty() {
            self.buffer = bytes;
        } else {
            self.buffer.extend_from_slice(&bytes);
        }
    }

    pub(super) fn take(&mut self) -> BytesMut {
        let passed = std::mem::take(&mut self.passed);
        self.buffer.split_to(passed)
    }

    pub(super) fn take_all(&mut self) -> BytesMut {
        self.passed = 0;
        std::mem::take(&mut self.buffer)
    }

    /// Goes on to the next beginning or end of a command; none if that has not come yet.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        loop {
            let rest = &self.buffer[self.passed..];
            match self.state {
                State::Between => return self.start(),
                State::Word(0) => {
                    self.state = State::Between;
                    return Some(Step::End);
                }
                State::Bytes(0, words) => self.state = State::Word(words),
                State::Bytes(bytes, words) => {
                    let here = u64::try_from(rest.len()).unwrap_or(u64::MAX).min(bytes);
                    if here == 0 {
                        return None;
                    }
                    self.passed += usize::try_from(here).unwrap_or(rest.len());
                    self.state = State::Bytes(bytes - here, words);
                }
                State::Word(words) => match number_line(rest, b'$', BULK_BYTES_MAX) {
                    Line::Number(length, line_bytes) => {
                        self.passed += line_bytes;
                        self.state = State::Bytes(length + 2, words - 1);
                    }
                    Line::Unfinished => return None,
                    Line::Garbage => return Some(Step::Garbage),
                },
            }
        }
    }

    fn start(&mut self) -> Option<Step> {
        let rest = &self.buffer[self.passed..];
        match rest.first()? {
            b'*' => {}
            // An empty line asks for nothing.
            b'\r' | b'\n' => {
                self.passed += 1;
                return self.start();
            }
            _ => return self.inline(),
        }
        let (count, mut at) = match number_line(rest, b'*', WORDS_MAX) {
            // The server passes over an empty command without an answer.
            Line::Number(0, line_bytes) => {
                self.passed += line_bytes;
                return self.start();
            }
            Line::Number(count, line_bytes) => (count, line_bytes),
            Line::Unfinished => return None,
            Line::Garbage => return Some(Step::Garbage),
        };
        let mut words: Vec<Vec<u8>> = Vec::new();
        loop {
            let wanted = words.first().map_or(1, |command| RedisOperation::words_wanted(command));
            if words.len() >= wanted || words.len() as u64 >= count {
                break;
            }
            let is_last_wanted = words.len() + 1 == wanted && wanted > 1;
            match number_line(&rest[at..], b'$', BULK_BYTES_MAX) {
                Line::Number(length, line_bytes) => {
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    let body = &rest[at + line_bytes..];
                    // Of the last word a beginning will do; those before it must be over.
                    let enough = if is_last_wanted { length.min(WORD_BYTES_MAX) } else { length.saturating_add(2) };
                    if body.len() < enough {
                        if rest.len() < HELD_BYTES_MAX {
                            return None;
                        }
                        // Too long to wait for: what is known will do.
                        words.push(body[..body.len().min(WORD_BYTES_MAX)].to_vec());
                        break;
                    }
                    words.push(body[..length.min(WORD_BYTES_MAX)].to_vec());
                    if is_last_wanted {
                        break;
                    }
                    at += line_bytes + length + 2;
                }
                Line::Unfinished => return None,
                Line::Garbage => return Some(Step::Garbage),
            }
        }
        self.state = State::Word(count);
        let Line::Number(_, line_bytes) = number_line(rest, b'*', WORDS_MAX) else { return Some(Step::Garbage) };
        // The count is passed with the words, after the caller has seen the beginning.
        self.state = State::Bytes(line_bytes as u64, count);
        Some(Step::Start(words))
    }

    fn inline(&mut self) -> Option<Step> {
        let rest = &self.buffer[self.passed..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return (rest.len() > LINE_BYTES_MAX).then_some(Step::Garbage);
        };
        let line = &rest[..end];
        if !line.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
            return Some(Step::Garbage);
        }
        let words: Vec<Vec<u8>> = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .take(4)
            .map(|word| word[..word.len().min(WORD_BYTES_MAX)].to_vec())
            .collect();
        if words.is_empty() {
            self.passed += end + 1;
            return self.start();
        }
        self.state = State::Bytes(end as u64 + 1, 0);
        Some(Step::Start(words))
    }
}

/// A type byte, a number and a line end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The number, not above its bound, and the line's length. Negative numbers count as 0.
    Number(u64, usize),
    Unfinished,
    Garbage,
}

pub(super) fn number_line(bytes: &[u8], kind: u8, number_max: u64) -> Line {
    /// The longest number of 64 bits, with its sign, type byte and line end.
    const LINE_BYTES: usize = 24;
    if bytes.first().is_some_and(|first| *first != kind) {
        return Line::Garbage;
    }
    let Some(end) = bytes.iter().take(LINE_BYTES).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_BYTES { Line::Unfinished } else { Line::Garbage };
    };
    let text = std::str::from_utf8(&bytes[1..end]).unwrap_or_default();
    match text.strip_suffix('\r').and_then(|digits| digits.parse::<i64>().ok()) {
        Some(number) => match u64::try_from(number) {
            Ok(number) if number > number_max => Line::Garbage,
            Ok(number) => Line::Number(number, end + 1),
            Err(_) => Line::Number(0, end + 1),
        },
        None => Line::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    #[test]
    fn a_long_value_is_not_waited_for() {
        let mut requests = Requests::default();
        let bytes = command(&[b"SET", b"k", &[b'v'; 100_000]]);
        requests.push(BytesMut::from(&bytes[..40]));
        assert_eq!(requests.next_step(), Some(Step::Start(vec![b"SET".to_vec(), b"k".to_vec()])));
        assert_eq!(requests.next_step(), None);
        assert_eq!(requests.take().len(), 40);
        requests.push(BytesMut::from(&bytes[40..]));
        assert_eq!(requests.next_step(), Some(Step::End));
        assert_eq!(requests.take().len(), bytes.len() - 40);
    }

    #[test]
    fn a_key_is_waited_for() {
        let mut requests = Requests::default();
        let bytes = command(&[b"GET", b"user:1"]);
        requests.push(BytesMut::from(&bytes[..bytes.len() - 4]));
        assert_eq!(requests.next_step(), None);
        assert_eq!(requests.take().len(), 0);
        requests.push(BytesMut::from(&bytes[bytes.len() - 4..]));
        assert_eq!(requests.next_step(), Some(Step::Start(vec![b"GET".to_vec(), b"user:1".to_vec()])));
    }

    #[test]
    fn commands_typed_on_a_line_are_commands() {
        let mut requests = Requests::default();
        requests.push(BytesMut::from(&b"\r\nPING\r\nset a b\r\n"[..]));
        assert_eq!(requests.next_step(), Some(Step::Start(vec![b"PING".to_vec()])));
        assert_eq!(requests.next_step(), Some(Step::End));
        assert!(matches!(requests.next_step(), Some(Step::Start(words)) if words.len() == 3));
        assert_eq!(requests.next_step(), Some(Step::End));
        assert_eq!(requests.next_step(), None);
    }

    #[test]
    fn what_the_server_would_refuse_is_garbage() {
        for bytes in [&b"*x\r\n"[..], b"*9999999\r\n", b"*1\r\n+OK\r\n", b"*1\r\n$999999999999\r\n", b"\0\x01\n"] {
            let mut requests = Requests::default();
            requests.push(BytesMut::from(bytes));
            let mut step = requests.next_step();
            while matches!(step, Some(Step::Start(_) | Step::End)) {
                step = requests.next_step();
            }
            assert_eq!(step, Some(Step::Garbage), "{bytes:?}");
        }
    }
}
