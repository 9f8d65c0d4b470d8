//! One connection of HTTP/1: requests paired with their answers, in order.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::{HttpOperation, body::Body};
use crate::protocol::{
    operation::{Operation, Outcome},
    piece::{Piece, Request, RequestId, Session, push_bytes},
};

/// Longest head, bytes; so much is held back until it is known.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header lines.
const HEADERS_MAX: usize = 128;
/// Requests the client may be owed an answer to.
const EXPECTED_MAX: usize = 1_024;

type Lost = &'static str;

/// An answer that the client is owed.
#[derive(Debug)]
struct Owed {
    id: RequestId,
    method_is_head: bool,
    swallowed: bool,
}

/// One direction: bytes that are not understood yet, and the body under way.
#[derive(Debug, Default)]
struct Direction {
    buffer: BytesMut,
    body: Option<Body>,
}

/// What the front of a direction's buffer is.
enum Front<T> {
    Body(usize),
    Head(T, usize),
    Unfinished,
}

/// See the module.
#[derive(Default)]
pub struct HttpSession {
    client: Direction,
    server: Direction,
    next_id: RequestId,
    expected: VecDeque<Owed>,
    sending: Option<RequestId>,
    /// The answer whose body is passing; none if nobody asked for it.
    answering: Option<(RequestId, Outcome)>,
    untracked: bool,
}

struct RequestHead {
    operation: HttpOperation,
    body: Body,
}

struct AnswerHead {
    status: u16,
    length: Option<u64>,
    chunked: bool,
}

impl Direction {
    fn next<T>(&mut self, parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, Lost>) -> Result<Front<T>, Lost> {
        if self.buffer.is_empty() {
            return Ok(Front::Unfinished);
        }
        if let Some(body) = &mut self.body {
            let passed = body.pass(&self.buffer).ok_or("a chunk has no size")?;
            return Ok(Front::Body(passed));
        }
        match parse(&self.buffer)? {
            Some((head, bytes)) => Ok(Front::Head(head, bytes)),
            None if self.buffer.len() > HEAD_BYTES_MAX => Err("a head is too long"),
            None => Ok(Front::Unfinished),
        }
    }
}

impl HttpSession {
    fn give_up(&mut self, reason: Lost, pieces: &mut Vec<Piece>) {
        self.untracked = true;
        self.expected.clear();
        self.answering = None;
        pieces.push(Piece::Untracked(reason));
    }

    fn follow_client(&mut self, pieces: &mut Vec<Piece>) -> Result<(), Lost> {
        loop {
            match self.client.next(request_head)? {
                Front::Unfinished => return Ok(()),
                Front::Head(head, bytes) => {
                    if self.expected.len() >= EXPECTED_MAX {
                        return Err("too many requests without an answer");
                    }
                    let id = self.next_id;
                    self.next_id += 1;
                    let method_is_head = head.operation.method == "HEAD";
                    self.expected.push_back(Owed { id, method_is_head, swallowed: false });
                    self.sending = Some(id);
                    pieces.push(Piece::Request(Request { id, operation: Operation::Http(head.operation) }));
                    push_bytes(pieces, self.client.buffer.split_to(bytes));
                    if matches!(head.body, Body::Length(1..)) {
                        pieces.push(Piece::RequestBody(id));
                    }
                    self.client.body = Some(head.body);
                }
                Front::Body(bytes) => push_bytes(pieces, self.client.buffer.split_to(bytes)),
            }
            if self.client.body.as_ref().is_some_and(Body::is_over) {
                self.client.body = None;
                pieces.extend(self.sending.take().map(Piece::RequestEnd));
            }
        }
    }

    fn follow_server(&mut self, pieces: &mut Vec<Piece>) -> Result<(), Lost> {
        loop {
            match self.server.next(answer_head)? {
                Front::Unfinished => return Ok(()),
                Front::Head(head, bytes) => self.begin_answer(&head, bytes, pieces)?,
                Front::Body(bytes) => push_bytes(pieces, self.server.buffer.split_to(bytes)),
            }
            if self.server.body.as_ref().is_some_and(Body::is_over) {
                self.end_answer(pieces);
            }
        }
    }

    fn begin_answer(&mut self, head: &AnswerHead, bytes: usize, pieces: &mut Vec<Piece>) -> Result<(), Lost> {
        if head.status == 101 {
            return Err("the connection turned to another protocol");
        }
        if head.status < 200 {
            // Another head for the same request follows.
            push_bytes(pieces, self.server.buffer.split_to(bytes));
            return Ok(());
        }
        let owed = self.expected.front().ok_or("an answer to no request")?;
        let outcome =
            if head.status < 400 { Outcome::Done } else { Outcome::Refused { code: head.status.to_string() } };
        let has_no_body = owed.method_is_head || head.status == 204 || head.status == 304;
        self.server.body = Some(match (has_no_body, head.chunked, head.length) {
            (true, ..) => Body::Length(0),
            (false, true, _) => Body::chunked(),
            (false, false, Some(length)) => Body::Length(length),
            (false, false, None) => Body::UntilClosed,
        });
        pieces.push(Piece::AnswerStart(owed.id));
        push_bytes(pieces, self.server.buffer.split_to(bytes));
        pieces.push(Piece::AnswerBody(owed.id));
        self.answering = Some((owed.id, outcome));
        Ok(())
    }

    fn end_answer(&mut self, pieces: &mut Vec<Piece>) {
        self.server.body = None;
        if let Some((id, outcome)) = self.answering.take() {
            self.expected.pop_front();
            pieces.push(Piece::AnswerEnd(id, outcome));
            while self.expected.front().is_some_and(|owed| owed.swallowed) {
                if let Some(owed) = self.expected.pop_front() {
                    pieces.push(Piece::Turn(owed.id));
                }
            }
        }
    }
}

impl Session for HttpSession {
    fn client_bytes(&mut self, bytes: BytesMut, pieces: &mut Vec<Piece>) {
        append(&mut self.client.buffer, bytes);
        if !self.untracked
            && let Err(reason) = self.follow_client(pieces)
        {
            self.give_up(reason, pieces);
        }
        if self.untracked {
            push_bytes(pieces, std::mem::take(&mut self.client.buffer));
        }
    }

    fn server_bytes(&mut self, bytes: BytesMut, pieces: &mut Vec<Piece>) {
        append(&mut self.server.buffer, bytes);
        if !self.untracked
            && let Err(reason) = self.follow_server(pieces)
        {
            self.give_up(reason, pieces);
        }
        if self.untracked {
            push_bytes(pieces, std::mem::take(&mut self.server.buffer));
        }
    }

    fn client_ended(&mut self, pieces: &mut Vec<Piece>) {
        push_bytes(pieces, std::mem::take(&mut self.client.buffer));
    }

    fn server_ended(&mut self, pieces: &mut Vec<Piece>) {
        push_bytes(pieces, std::mem::take(&mut self.server.buffer));
        if self.server.body == Some(Body::UntilClosed) {
            self.end_answer(pieces);
        }
    }

    fn swallow(&mut self, id: RequestId, _: bool) -> bool {
        let Some(at) = self.expected.iter().position(|owed| owed.id == id) else { return false };
        if at == 0 && self.answering.is_none() {
            self.expected.pop_front();
            return true;
        }
        self.expected[at].swallowed = true;
        false
    }

    fn again(&mut self, id: RequestId) -> Option<RequestId> {
        let at = self.expected.iter().position(|owed| owed.id == id)?;
        let again = Owed { id: self.next_id, method_is_head: self.expected[at].method_is_head, swallowed: false };
        self.next_id += 1;
        // Requests behind it may be known already; none of their bytes has gone on yet.
        self.expected.insert(at + 1, again);
        Some(self.next_id - 1)
    }

    fn at_answer_boundary(&self) -> bool {
        self.server.body.is_none() && self.server.buffer.is_empty()
    }
}

fn append(buffer: &mut BytesMut, bytes: BytesMut) {
    if buffer.is_empty() {
        *buffer = bytes;
    } else {
        buffer.extend_from_slice(&bytes);
    }
}

fn request_head(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Lost> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("the client's bytes are no requests"),
    };
    let method = request.method.unwrap_or_default();
    if method == "CONNECT" {
        return Err("the connection turned to a tunnel");
    }
    let (length, chunked) = framing(request.headers)?;
    let body = if chunked { Body::chunked() } else { Body::Length(length.unwrap_or(0)) };
    let operation = HttpOperation { method: method.to_owned(), path: path_of(request.path.unwrap_or_default()) };
    Ok(Some((RequestHead { operation, body }, head_bytes)))
}

/// The path of a target, without its query and, in the form for proxies, without its origin.
fn path_of(target: &str) -> String {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]).to_owned(),
        None => target.to_owned(),
    }
}

fn answer_head(bytes: &[u8]) -> Result<Option<(AnswerHead, usize)>, Lost> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let head_bytes = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("the server's bytes are no answers"),
    };
    let (length, chunked) = framing(answer.headers)?;
    Ok(Some((AnswerHead { status: answer.code.unwrap_or(0), length, chunked }, head_bytes)))
}

/// Content-Length, and whether the body comes in chunks, which wins.
fn framing(headers: &[httparse::Header<'_>]) -> Result<(Option<u64>, bool), Lost> {
    let mut length = None;
    let mut chunked = false;
    for header in headers {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse().map_err(|_| "a length is no number")?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.to_ascii_lowercase().ends_with("chunked");
        }
    }
    Ok((length, chunked))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::piece::tests::{Side, Trace, trace_in_pieces};

    fn conversation() -> Vec<(Side, Vec<u8>)> {
        let client = |text: &str| (Side::Client, text.as_bytes().to_vec());
        let server = |text: &str| (Side::Server, text.as_bytes().to_vec());
        vec![
            client("POST /v1/charges?a=1 HTTP/1.1\r\nhost: p\r\ncontent-length: 5\r\n\r\nhello"),
            server("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            client("GET http://p/v1/x HTTP/1.1\r\nhost: p\r\n\r\nHEAD /y HTTP/1.1\r\nhost: p\r\n\r\n"),
            server("HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            server("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"),
            client("PUT /z HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
            server("HTTP/1.1 204 No Content\r\n\r\n"),
            client("GET /last HTTP/1.0\r\n\r\n"),
            server("HTTP/1.0 200 OK\r\n\r\nuntil the end"),
        ]
    }

    #[test]
    fn a_conversation_is_told_request_by_request() {
        let mut session = HttpSession::default();
        let mut trace = trace_in_pieces(&mut session, &conversation(), &[]);
        trace.end(&mut session);
        assert_eq!(
            trace.names(),
            [
                "request 0: POST /v1/charges",
                "content 0",
                "sent 0",
                "answer 0",
                "body 0",
                "end 0: done",
                "request 1: GET /v1/x",
                "sent 1",
                "request 2: HEAD /y",
                "sent 2",
                "answer 1",
                "body 1",
                "end 1: refused 503",
                "answer 2",
                "body 2",
                "end 2: done",
                "request 3: PUT /z",
                "sent 3",
                "answer 3",
                "body 3",
                "end 3: done",
                "request 4: GET /last",
                "sent 4",
                "answer 4",
                "body 4",
                "end 4: done",
            ]
        );
    }

    #[test]
    fn another_protocol_passes_and_is_said() {
        for bytes in ["\x16\x03\x01", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n"] {
            let mut session = HttpSession::default();
            let mut trace = Trace::default();
            trace.feed(&mut session, Side::Client, bytes.as_bytes());
            assert!(matches!(trace.names().as_slice(), [one] if one.starts_with("untracked")), "{bytes:?}");
            assert_eq!(trace.client, bytes.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_conversation_tells_the_same(sizes in prop::collection::vec(1_usize..60, 1..20)) {
            let turns = conversation();
            let whole = trace_in_pieces(&mut HttpSession::default(), &turns, &[]);
            let cut = trace_in_pieces(&mut HttpSession::default(), &turns, &sizes);
            prop_assert_eq!(&whole, &cut);
        }

        #[test]
        fn any_bytes_pass_unchanged(turns in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8)) {
            pass_unchanged(turns)?;
        }

        #[test]
        fn bytes_that_look_like_the_protocol_pass_unchanged(
            turns in prop::collection::vec(
                (any::<bool>(), prop::sample::select(vec![
                    "GET / HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\n", "content-length: 3\r\n", "transfer-encoding: chunked\r\n",
                    "\r\n", "3\r\nabc\r\n", "0\r\n", "abc", ":", "\n",
                ])),
                0..20,
            ),
        ) {
            pass_unchanged(turns.into_iter().map(|(client, text)| (client, text.as_bytes().to_vec())).collect())?;
        }
    }

    fn pass_unchanged(turns: Vec<(bool, Vec<u8>)>) -> Result<(), TestCaseError> {
        let mut session = HttpSession::default();
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
