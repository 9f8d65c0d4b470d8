//! Messages out of bytes: a tag of one byte, a length of four, a body; before the login no tag.

use bytes::{Buf, BytesMut};

/// Longest body the protocol allows.
const BODY_BYTES_MAX: usize = 0x3fff_ffff;
/// Longest message before the login, as the server itself has it.
const STARTUP_BYTES_MAX: usize = 10_000;
const TAG_BYTES: usize = 1;
const LENGTH_BYTES: usize = 4;

/// What lies ahead in one direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A message begins; its bytes are not taken yet.
    Start {
        /// 0 before the login.
        tag: u8,
        /// The body's beginning, as long as was asked for.
        body: Vec<u8>,
        /// Whether that is the whole body.
        whole: bool,
    },
    /// Its last byte has been taken.
    End,
    /// What follows is no message.
    Garbage,
}

/// Cuts one direction into messages. Holds back at most one message's wanted beginning.
#[derive(Debug)]
pub(super) struct Framer {
    buffer: BytesMut,
    /// Bytes of the buffer that were stepped over and not taken.
    passed: usize,
    state: State,
    /// How much of a body is wanted, by tag.
    wanted: fn(u8) -> Option<usize>,
    tagged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    /// Bytes left of the current message.
    Within(usize),
}

impl Framer {
    /// `wanted`: how much of a message's body to read ahead; none for a tag that does not exist.
    pub(super) fn new(tagged: bool, wanted: fn(u8) -> Option<usize>) -> Self {
        Self { buffer: BytesMut::new(), passed: 0, state: State::Between, wanted, tagged }
    }

    /// From the next message on there are tags.
    pub(super) fn expect_tags(&mut self) {
        self.tagged = true;
    }

    pub(super) fn push(&mut self, bytes: BytesMut) {
        if self.buffer.is_empty() {
            self.buffer = bytes;
        } else {
            self.buffer.extend_from_slice(&bytes);
        }
    }

    pub(super) fn is_between(&self) -> bool {
        self.state == State::Between && self.buffer.is_empty()
    }

    /// Goes on to the next beginning or end of a message; none if that has not come yet.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        let ahead = self.buffer.len() - self.passed;
        match self.state {
            State::Within(left) => {
                let taken = left.min(ahead);
                self.passed += taken;
                if taken < left {
                    self.state = State::Within(left - taken);
                    return None;
                }
                self.state = State::Between;
                Some(Step::End)
            }
            State::Between if ahead == 0 => None,
            State::Between => self.start(),
        }
    }

    /// Bytes stepped over since the last call.
    pub(super) fn take(&mut self) -> BytesMut {
        let passed = std::mem::take(&mut self.passed);
        self.buffer.split_to(passed)
    }

    /// Everything that has come, understood or not.
    pub(super) fn take_all(&mut self) -> BytesMut {
        self.passed = 0;
        std::mem::take(&mut self.buffer)
    }

    /// Takes one byte out of order, if one lies between messages: the answer to a request for
    /// encryption is no message.
    pub(super) fn lone_byte(&mut self) -> Option<u8> {
        let byte = *self.buffer.get(self.passed)?;
        self.passed += 1;
        Some(byte)
    }

    fn start(&mut self) -> Option<Step> {
        let mut head = &self.buffer[self.passed..];
        let head_bytes = if self.tagged { TAG_BYTES + LENGTH_BYTES } else { LENGTH_BYTES };
        let tag = if self.tagged { head.get_u8() } else { 0 };
        let Some(wanted) = (self.wanted)(tag) else { return Some(Step::Garbage) };
        if head.len() < LENGTH_BYTES {
            return None;
        }
        let length = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
        let bytes_max = if self.tagged { BODY_BYTES_MAX } else { STARTUP_BYTES_MAX };
        if !(LENGTH_BYTES..=bytes_max).contains(&length) {
            return Some(Step::Garbage);
        }
        let body_bytes = length - LENGTH_BYTES;
        let ahead = body_bytes.min(wanted);
        let body = head.get(..ahead)?.to_vec();
        self.state = State::Within(head_bytes + body_bytes);
        Some(Step::Start { tag, body, whole: ahead == body_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framer() -> Framer {
        Framer::new(true, |tag| match tag {
            b'Q' => Some(8),
            b'd' => Some(0),
            _ => None,
        })
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).expect("short").to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_long_body_passes_without_being_held() {
        let mut framer = framer();
        let bytes = message(b'd', &[7; 1_000]);
        framer.push(BytesMut::from(&bytes[..105]));
        assert_eq!(framer.next_step(), Some(Step::Start { tag: b'd', body: Vec::new(), whole: false }));
        assert_eq!(framer.next_step(), None);
        assert_eq!(framer.take().len(), 105);
        framer.push(BytesMut::from(&bytes[105..]));
        assert_eq!(framer.next_step(), Some(Step::End));
        assert_eq!(framer.take().len(), 900);
        assert!(framer.is_between());
    }

    #[test]
    fn a_beginning_waits_for_what_is_wanted_of_it_and_no_more() {
        let mut framer = framer();
        let bytes = message(b'Q', b"select 1 and more");
        framer.push(BytesMut::from(&bytes[..12]));
        assert_eq!(framer.next_step(), None);
        assert_eq!(framer.take().len(), 0);
        framer.push(BytesMut::from(&bytes[12..13]));
        assert_eq!(framer.next_step(), Some(Step::Start { tag: b'Q', body: b"select 1".to_vec(), whole: false }));
    }

    #[test]
    fn impossible_lengths_and_unknown_tags_are_garbage() {
        for bytes in [&b"Q\0\0\0\x03"[..], b"Q\xff\xff\xff\xff", b"z"] {
            let mut framer = framer();
            framer.push(BytesMut::from(bytes));
            assert_eq!(framer.next_step(), Some(Step::Garbage), "{bytes:?}");
            assert_eq!(framer.take_all(), bytes);
        }
    }
}
