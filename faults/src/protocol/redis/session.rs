//! One connection to Redis: commands paired with their replies, in order.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::{
    command::RedisOperation,
    replies::{Byte, Replies},
    requests::{Requests, Step},
    scripts::{ScriptNames, name_of},
};
use crate::protocol::{
    operation::{Operation, Outcome},
    piece::{Piece, Request, RequestId, Session, push_bytes},
};

/// Commands the client may be owed a reply to.
const EXPECTED_MAX: usize = 65_536;

/// A reply that the client is owed.
#[derive(Debug)]
struct Owed {
    id: RequestId,
    /// The command did not reach the server, so the server will not answer it.
    swallowed: bool,
    is_exec: bool,
    /// Name of the script whose digest the reply tells.
    loads: Option<String>,
}

/// See the module.
pub struct RedisSession {
    requests: Requests,
    replies: Replies,
    scripts: ScriptNames,
    next_id: RequestId,
    expected: VecDeque<Owed>,
    /// The open transaction, as the EXEC it will be.
    multi: Option<RedisOperation>,
    resp3: bool,
    sending: Option<RequestId>,
    /// The reply that is passing answers the front of `expected`.
    answering: bool,
    untracked: bool,
}

impl RedisSession {
    /// `scripts`: where digests are looked up and learnt.
    pub fn new(scripts: ScriptNames) -> Self {
        Self {
            requests: Requests::default(),
            replies: Replies::default(),
            scripts,
            next_id: 0,
            expected: VecDeque::new(),
            multi: None,
            resp3: false,
            sending: None,
            answering: false,
            untracked: false,
        }
    }

    fn give_up(&mut self, reason: &'static str, pieces: &mut Vec<Piece>) {
        self.untracked = true;
        self.expected.clear();
        pieces.push(Piece::Untracked(reason));
    }

    /// Names a command and expects its reply.
    fn command(&mut self, words: &[Vec<u8>]) -> Result<RedisOperation, &'static str> {
        let mut operation = RedisOperation::new(words, |sha| self.scripts.get(sha));
        let argument =
            |at: usize, text: &str| words.get(at).is_some_and(|word| word.eq_ignore_ascii_case(text.as_bytes()));
        let id = self.next_id;
        let mut owed = Owed { id, swallowed: false, is_exec: false, loads: None };
        let mut is_answered = true;
        match operation.command.as_str() {
            "MONITOR" | "SYNC" | "PSYNC" => return Err("the server sends without being asked"),
            "CLIENT" if argument(1, "REPLY") => return Err("the client wants no replies"),
            "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE" => {
                if !self.resp3 {
                    return Err("subscribed without push messages");
                }
                is_answered = false;
            }
            "HELLO" => self.resp3 |= argument(1, "3"),
            "MULTI" => {
                self.multi = Some(RedisOperation::new(&[b"EXEC".to_vec()], |_| None));
            }
            "EXEC" => {
                owed.is_exec = true;
                operation = self.multi.take().unwrap_or(operation);
                operation.keys = operation.carries_out.iter().flat_map(|one| one.keys.iter().cloned()).collect();
            }
            "DISCARD" | "RESET" => self.multi = None,
            "SCRIPT" if argument(1, "LOAD") => owed.loads = words.get(2).map(|body| name_of(body)),
            _ => {}
        }
        if let Some(exec) = &mut self.multi
            && !matches!(operation.command.as_str(), "MULTI" | "WATCH" | "QUIT")
        {
            operation.queued = true;
            exec.add(operation.clone());
        }
        if is_answered {
            if self.expected.len() >= EXPECTED_MAX {
                return Err("too many commands without a reply");
            }
            self.expected.push_back(owed);
        }
        self.next_id += 1;
        Ok(operation)
    }

    /// The request that a reply's first byte begins to answer, unless it is a push message.
    fn begin_reply(&mut self, kind: u8) -> Result<Option<RequestId>, &'static str> {
        self.answering = kind != b'>';
        if !self.answering {
            return Ok(None);
        }
        self.expected.front().map(|owed| Some(owed.id)).ok_or("a reply to no command")
    }

    fn end_reply(&mut self, pieces: &mut Vec<Piece>) {
        if !std::mem::take(&mut self.answering) {
            return;
        }
        let Some(owed) = self.expected.pop_front() else { return };
        let text = String::from_utf8_lossy(self.replies.text());
        let outcome = match self.replies.kind() {
            b'-' | b'!' => {
                let code = text.split_whitespace().next().unwrap_or("unknown");
                Outcome::Refused { code: code.into() }
            }
            _ if owed.is_exec && self.replies.is_null() => Outcome::RolledBack,
            _ => Outcome::Done,
        };
        if let Some(name) = owed.loads
            && outcome == Outcome::Done
            && text.len() == 40
        {
            self.scripts.learn(&text, &name);
        }
        pieces.push(Piece::AnswerEnd(owed.id, outcome));
        while self.expected.front().is_some_and(|owed| owed.swallowed) {
            if let Some(owed) = self.expected.pop_front() {
                pieces.push(Piece::Turn(owed.id));
            }
        }
    }
}

impl Session for RedisSession {
    fn client_bytes(&mut self, bytes: BytesMut, pieces: &mut Vec<Piece>) {
        self.requests.push(bytes);
        if self.untracked {
            return push_bytes(pieces, self.requests.take_all());
        }
        while let Some(step) = self.requests.next_step() {
            let told = match step {
                Step::Start(words) => self.command(&words).map(Some),
                Step::End => {
                    push_bytes(pieces, self.requests.take());
                    pieces.extend(self.sending.take().map(Piece::RequestEnd));
                    Ok(None)
                }
                Step::Garbage => Err("the client's bytes are no commands"),
            };
            match told {
                Ok(Some(operation)) => {
                    push_bytes(pieces, self.requests.take());
                    let id = self.next_id - 1;
                    self.sending = Some(id);
                    pieces.push(Piece::Request(Request { id, operation: Operation::Redis(operation) }));
                }
                Ok(None) => {}
                Err(reason) => {
                    push_bytes(pieces, self.requests.take());
                    self.give_up(reason, pieces);
                    return push_bytes(pieces, self.requests.take_all());
                }
            }
        }
        push_bytes(pieces, self.requests.take());
    }

    fn server_bytes(&mut self, mut bytes: BytesMut, pieces: &mut Vec<Piece>) {
        let mut at = 0;
        while at < bytes.len() && !self.untracked {
            let ahead = usize::try_from(self.replies.bulk_ahead()).unwrap_or(usize::MAX).min(bytes.len() - at);
            if ahead > 0 {
                self.replies.skip(ahead as u64);
                at += ahead;
                continue;
            }
            let told = match self.replies.step(bytes[at]) {
                Byte::First(kind) => self.begin_reply(kind),
                Byte::Within => Ok(None),
                Byte::Last => {
                    push_bytes(pieces, bytes.split_to(at + 1));
                    at = 0;
                    self.end_reply(pieces);
                    continue;
                }
                Byte::Garbage => Err("the server's bytes are no replies"),
            };
            match told {
                Ok(Some(id)) => {
                    push_bytes(pieces, bytes.split_to(at));
                    at = 0;
                    pieces.push(Piece::AnswerStart(id));
                }
                Ok(None) => {}
                Err(reason) => {
                    push_bytes(pieces, bytes.split_to(at));
                    self.give_up(reason, pieces);
                    break;
                }
            }
            at += 1;
        }
        push_bytes(pieces, bytes);
    }

    fn client_ended(&mut self, pieces: &mut Vec<Piece>) {
        push_bytes(pieces, self.requests.take_all());
    }

    fn server_ended(&mut self, _: &mut Vec<Piece>) {}

    fn swallow(&mut self, id: RequestId, stand_in: bool) -> bool {
        let first_unanswered = if self.replies.is_between() { 0 } else { 1 };
        let Some(at) = self.expected.iter().position(|owed| owed.id == id) else { return false };
        if stand_in {
            return false;
        }
        if at == first_unanswered && at == 0 {
            self.expected.pop_front();
            return true;
        }
        self.expected[at].swallowed = true;
        false
    }

    fn at_answer_boundary(&self) -> bool {
        self.replies.is_between()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::piece::tests::{Side, Trace, trace_in_pieces};

    fn session() -> RedisSession {
        RedisSession::new(ScriptNames::default())
    }

    fn command(words: &[&str]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        bytes
    }

    fn told(turns: &[(Side, Vec<u8>)]) -> Vec<String> {
        let trace = trace_in_pieces(&mut session(), turns, &[]);
        trace.events.into_iter().map(|(_, name)| name).collect()
    }

    const SHA: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";

    /// A conversation with everything in it, in the order of its turns.
    fn conversation() -> Vec<(Side, Vec<u8>)> {
        let client = |words: &[&str]| (Side::Client, command(words));
        let server = |text: &str| (Side::Server, text.as_bytes().to_vec());
        let mut pipeline = command(&["SET", "user:1", &"v".repeat(300)]);
        pipeline.extend(command(&["GET", "user:2"]));
        pipeline.extend(command(&["PING"]));
        let mut transaction = command(&["MULTI"]);
        transaction.extend(command(&["INCR", "n:1"]));
        transaction.extend(command(&["EXPIRE", "n:1", "10"]));
        transaction.extend(command(&["EXEC"]));
        vec![
            client(&["HELLO", "3"]),
            server("%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n"),
            (Side::Client, pipeline),
            server("+OK\r\n$5\r\nab\r\nc\r\n>2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n+PONG\r\n"),
            (Side::Client, transaction),
            server("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n"),
            client(&["EVALSHA", SHA, "1", "limit:1", "5"]),
            server("-NOSCRIPT No matching script.\r\n"),
            client(&["SCRIPT", "LOAD", "-- take a token\nreturn 1"]),
            (Side::Server, format!("$40\r\n{SHA}\r\n").into_bytes()),
            client(&["EVALSHA", SHA, "1", "limit:1", "5"]),
            server(":1\r\n"),
            client(&["SUBSCRIBE", "c"]),
            server(">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"),
            (Side::Client, b"PING\r\n".to_vec()),
            server("+PONG\r\n"),
        ]
    }

    #[test]
    fn a_conversation_is_told_command_by_command() {
        assert_eq!(
            told(&conversation()),
            [
                "request 0: HELLO 3",
                "sent 0",
                "answer 0",
                "end 0: done",
                "request 1: SET user:1",
                "sent 1",
                "request 2: GET user:2",
                "sent 2",
                "request 3: PING",
                "sent 3",
                "answer 1",
                "end 1: done",
                "answer 2",
                "end 2: done",
                "answer 3",
                "end 3: done",
                "request 4: MULTI",
                "sent 4",
                "request 5: INCR n:1",
                "sent 5",
                "request 6: EXPIRE n:1",
                "sent 6",
                "request 7: EXEC[INCR, EXPIRE] n:1",
                "sent 7",
                "answer 4",
                "end 4: done",
                "answer 5",
                "end 5: done",
                "answer 6",
                "end 6: done",
                "answer 7",
                "end 7: done",
                "request 8: EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db limit:1",
                "sent 8",
                "answer 8",
                "end 8: refused NOSCRIPT",
                "request 9: SCRIPT LOAD",
                "sent 9",
                "answer 9",
                "end 9: done",
                "request 10: EVALSHA take a token limit:1",
                "sent 10",
                "answer 10",
                "end 10: done",
                "request 11: SUBSCRIBE c",
                "sent 11",
                "request 12: PING",
                "sent 12",
                "answer 12",
                "end 12: done",
            ]
        );
    }

    #[test]
    fn an_exec_that_was_watched_away_is_rolled_back() {
        let mut all = command(&["MULTI"]);
        all.extend(command(&["EXEC"]));
        let told = told(&[(Side::Client, all), (Side::Server, b"+OK\r\n*-1\r\n".to_vec())]);
        assert_eq!(told.last().map(String::as_str), Some("end 1: rolled back"));
    }

    #[test]
    fn a_swallowed_command_gets_its_turn_after_those_before_it() {
        let mut session = session();
        let mut trace = Trace::default();
        let mut all = command(&["GET", "a"]);
        all.extend(command(&["SET", "b", "1"]));
        all.extend(command(&["GET", "c"]));
        trace.feed(&mut session, Side::Client, &all);
        assert!(!session.swallow(1, false));
        trace.events.clear();
        trace.feed(&mut session, Side::Server, b"$-1\r\n$1\r\nx\r\n");
        assert_eq!(trace.names(), ["answer 0", "end 0: done", "turn 1", "answer 2", "end 2: done"]);
        trace.feed(&mut session, Side::Client, &command(&["SET", "d", "1"]));
        assert!(session.swallow(3, false), "nothing stands before it");
    }

    #[test]
    fn what_cannot_be_followed_passes_and_is_said() {
        for (side, bytes) in [
            (Side::Client, command(&["MONITOR"])),
            (Side::Client, command(&["SUBSCRIBE", "c"])),
            (Side::Client, command(&["CLIENT", "REPLY", "OFF"])),
            (Side::Server, b"+OK\r\n".to_vec()),
            (Side::Server, b"\x15\x03".to_vec()),
        ] {
            let told = told(&[(side, bytes.clone())]);
            assert!(matches!(told.as_slice(), [one] if one.starts_with("untracked")), "{bytes:?}: {told:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_conversation_tells_the_same(sizes in prop::collection::vec(1_usize..40, 1..20)) {
            let turns = conversation();
            let whole = trace_in_pieces(&mut session(), &turns, &[]);
            let cut = trace_in_pieces(&mut session(), &turns, &sizes);
            prop_assert_eq!(&whole, &cut);
            let of = |side: Side| turns.iter().filter(|turn| turn.0 == side).flat_map(|turn| turn.1.clone()).collect::<Vec<u8>>();
            prop_assert_eq!(cut.client, of(Side::Client));
            prop_assert_eq!(cut.server, of(Side::Server));
        }

        #[test]
        fn any_bytes_pass_unchanged(turns in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8)) {
            pass_unchanged(turns)?;
        }

        #[test]
        fn bytes_that_look_like_the_protocol_pass_unchanged(
            turns in prop::collection::vec((any::<bool>(), "[*$+:>%|_0-9\r\nA-Z -]{0,60}"), 0..8),
        ) {
            pass_unchanged(turns.into_iter().map(|(client, text)| (client, text.into_bytes())).collect())?;
        }
    }

    fn pass_unchanged(turns: Vec<(bool, Vec<u8>)>) -> Result<(), TestCaseError> {
        let mut session = session();
        let mut trace = Trace::default();
        let (mut client, mut server) = (Vec::new(), Vec::new());
        for (from_client, bytes) in turns {
            let (side, all) = if from_client { (Side::Client, &mut client) } else { (Side::Server, &mut server) };
            all.extend_from_slice(&bytes);
            trace.feed(&mut session, side, &bytes);
        }
        trace.end(&mut session);
        prop_assert_eq!(trace.client, client);
        prop_assert_eq!(trace.server, server);
        Ok(())
    }
}
