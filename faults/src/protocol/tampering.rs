//! What is done to a request's own bytes on their way to the server: kept for a second sending, or changed.

use bytes::BytesMut;

use super::{grip::Firing, piece::RequestId};

/// Longest request that is sent twice, bytes.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// The one request of a connection that is tampered with, if there is one.
#[derive(Debug, Default)]
pub(super) struct Tampering {
    kept: Option<Kept>,
    forgery: Option<Forgery>,
}

/// A request whose bytes are kept while they pass.
#[derive(Debug)]
struct Kept {
    id: RequestId,
    firing: Firing,
    bytes: BytesMut,
}

/// A request that waits for a digit of its body.
#[derive(Debug)]
struct Forgery {
    id: RequestId,
    firing: Firing,
    in_body: bool,
}

/// What came of the bytes that passed.
#[derive(Debug)]
pub(super) enum Tampered {
    /// They are not what the client sent.
    Forged(Firing),
    /// There are too many to be sent twice.
    TooLong(Firing),
}

impl Tampering {
    /// Keeps the bytes of the request that begins now.
    pub(super) fn keep(&mut self, id: RequestId, firing: Firing) {
        self.kept = Some(Kept { id, firing, bytes: BytesMut::new() });
    }

    /// Changes a digit in the body of the request that begins now.
    pub(super) fn forge(&mut self, id: RequestId, firing: Firing) {
        self.forgery = Some(Forgery { id, firing, in_body: false });
    }

    /// The request's body begins.
    pub(super) fn body(&mut self, id: RequestId) {
        if let Some(forgery) = &mut self.forgery {
            forgery.in_body = forgery.id == id;
        }
    }

    /// Bytes from the client pass.
    pub(super) fn pass(&mut self, bytes: &mut BytesMut) -> Option<Tampered> {
        if let Some(kept) = &mut self.kept {
            kept.bytes.extend_from_slice(bytes);
        }
        if let Some(kept) = self.kept.take_if(|kept| kept.bytes.len() > KEPT_BYTES_MAX) {
            return Some(Tampered::TooLong(kept.firing));
        }
        let in_body = self.forgery.as_ref().is_some_and(|forgery| forgery.in_body);
        let digit = bytes.iter_mut().find(|byte| in_body && byte.is_ascii_digit())?;
        // Never a leading zero: the body stays what a parser takes.
        *digit = if *digit == b'9' { b'8' } else { *digit + 1 };
        self.forgery.take().map(|forgery| Tampered::Forged(forgery.firing))
    }

    /// The request is over: its bytes, if they are to go once more.
    pub(super) fn end(&mut self, id: RequestId) -> Option<(Firing, BytesMut)> {
        self.forgery.take_if(|forgery| forgery.id == id);
        self.kept.take_if(|kept| kept.id == id).map(|kept| (kept.firing, kept.bytes))
    }
}
