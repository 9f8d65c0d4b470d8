//! What a session makes of a connection's bytes: the bytes themselves, with the places where
//! requests and answers begin and end.

use bytes::BytesMut;

use super::operation::{Operation, Outcome};

/// Number of a request within its connection, from 0.
pub(super) type RequestId = u64;

/// One step in one direction of a connection; the bytes of all pieces are the bytes that came in.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes to hand on.
    Bytes(BytesMut),
    /// The next bytes from the client begin this request.
    Request(Request),
    /// The request's head is over, a body of a known length begins. Only where a protocol has both.
    RequestBody(RequestId),
    /// The last byte of the request went before.
    RequestEnd(RequestId),
    /// The next bytes from the server begin the answer to this request.
    AnswerStart(RequestId),
    /// The answer's head is over, its body begins. Only where a protocol has both.
    AnswerBody(RequestId),
    /// The last byte that says how the request went came before.
    AnswerEnd(RequestId, Outcome),
    /// All answers before the one to this swallowed request have passed.
    Turn(RequestId),
    /// From here on bytes pass without being understood, for the reason given.
    Untracked(&'static str),
}

/// A request that the client sent.
#[derive(Debug)]
pub(super) struct Request {
    pub id: RequestId,
    pub operation: Operation,
}

/// Follows one connection of one protocol. No I/O and no clock; memory is bounded.
pub(super) trait Session: Send {
    /// Takes bytes from the client and appends what they are.
    fn client_bytes(&mut self, bytes: BytesMut, pieces: &mut Vec<Piece>);

    /// Takes bytes from the server and appends what they are.
    fn server_bytes(&mut self, bytes: BytesMut, pieces: &mut Vec<Piece>);

    /// The client sends no more: gives up what was kept back of an unfinished message.
    fn client_ended(&mut self, pieces: &mut Vec<Piece>);

    /// The server sends no more; may end an answer.
    fn server_ended(&mut self, pieces: &mut Vec<Piece>);

    /// The request will not reach the server. Returns whether it is its turn to be answered now;
    /// else [`Piece::Turn`] says so later. `stand_in`: the server gets another request in its
    /// place, whose answer then counts as the answer to this one, and no turn is told.
    fn swallow(&mut self, id: RequestId, stand_in: bool) -> bool;

    /// The request, whose last byte went just before, is sent once more: the number under which its second answer is
    /// told. None where the protocol or the request allows no such thing.
    fn again(&mut self, _: RequestId) -> Option<RequestId> {
        None
    }

    /// Whether the server's last message has passed as a whole.
    fn at_answer_boundary(&self) -> bool;
}

/// Appends bytes, without a copy to those before where they lie side by side.
pub(super) fn push_bytes(pieces: &mut Vec<Piece>, bytes: BytesMut) {
    if bytes.is_empty() {
        return;
    }
    if let Some(Piece::Bytes(last)) = pieces.last_mut()
        && last.as_ptr().wrapping_add(last.len()) == bytes.as_ptr()
    {
        last.unsplit(bytes);
        return;
    }
    pieces.push(Piece::Bytes(bytes));
}

#[cfg(test)]
pub(super) mod tests {
    //! A way to look at a session: what it said, and at which byte.

    use super::*;

    /// Whose bytes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Side {
        Client,
        Server,
    }

    /// What a session said about some bytes.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub struct Trace {
        /// Bytes handed on from the client.
        pub client: Vec<u8>,
        /// Bytes handed on from the server.
        pub server: Vec<u8>,
        /// Each event with the number of bytes that went before it in its direction.
        pub events: Vec<(usize, String)>,
    }

    impl Trace {
        pub fn feed(&mut self, session: &mut dyn Session, side: Side, bytes: &[u8]) {
            let mut pieces = Vec::new();
            match side {
                Side::Client => session.client_bytes(BytesMut::from(bytes), &mut pieces),
                Side::Server => session.server_bytes(BytesMut::from(bytes), &mut pieces),
            }
            self.take(side, pieces);
        }

        pub fn end(&mut self, session: &mut dyn Session) {
            let mut pieces = Vec::new();
            session.client_ended(&mut pieces);
            self.take(Side::Client, std::mem::take(&mut pieces));
            session.server_ended(&mut pieces);
            self.take(Side::Server, pieces);
        }

        pub fn names(&self) -> Vec<&str> {
            self.events.iter().map(|(_, name)| name.as_str()).collect()
        }

        fn take(&mut self, side: Side, pieces: Vec<Piece>) {
            for piece in pieces {
                let bytes = match side {
                    Side::Client => &mut self.client,
                    Side::Server => &mut self.server,
                };
                let name = match piece {
                    Piece::Bytes(more) => {
                        bytes.extend_from_slice(&more);
                        continue;
                    }
                    Piece::Request(request) => format!("request {}: {}", request.id, request.operation.label()),
                    Piece::RequestBody(id) => format!("content {id}"),
                    Piece::RequestEnd(id) => format!("sent {id}"),
                    Piece::AnswerStart(id) => format!("answer {id}"),
                    Piece::AnswerBody(id) => format!("body {id}"),
                    Piece::AnswerEnd(id, outcome) => format!("end {id}: {outcome}"),
                    Piece::Turn(id) => format!("turn {id}"),
                    Piece::Untracked(reason) => format!("untracked: {reason}"),
                };
                self.events.push((bytes.len(), name));
            }
        }
    }

    /// Feeds a conversation, each turn cut into pieces of the given sizes, over and over.
    pub fn trace_in_pieces(session: &mut dyn Session, turns: &[(Side, Vec<u8>)], sizes: &[usize]) -> Trace {
        let mut trace = Trace::default();
        let mut sizes = sizes.iter().copied().filter(|size| *size > 0).cycle();
        for (side, bytes) in turns {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
                trace.feed(session, *side, &rest[..size]);
                rest = &rest[size..];
            }
        }
        trace
    }
}
