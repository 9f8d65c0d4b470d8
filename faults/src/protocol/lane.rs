//! What goes on in one direction, in order, with its waits.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::{
    grip::{Firing, GripState},
    piece::RequestId,
};

/// How an end is told to the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndKind {
    /// This direction alone is over.
    Eof,
    /// Both sides are closed.
    Cut,
    /// Both sides are reset.
    Reset,
}

/// Something that goes on.
#[derive(Debug)]
pub(super) enum Out {
    Data(BytesMut),
    /// Nothing behind it goes on before its time.
    Until {
        since: Instant,
        at: Instant,
        firing: Firing,
    },
    /// Nothing behind it goes on until so long after it has come to the front.
    Pause(Duration),
    /// The whole connection falls silent here.
    Hold(Firing),
    End(EndKind, Option<Firing>),
}

/// What becomes of bytes that come in now.
#[derive(Debug)]
pub(super) enum Gate {
    Open,
    /// They belong to a request or an answer that is not handed on.
    Discard(RequestId),
    /// They go on in small pieces, each after a pause.
    Slow {
        id: RequestId,
        bytes: usize,
        every: Duration,
    },
    /// They are lost until the connection ends.
    Lost(Firing),
    /// The connection is at its end.
    Closed,
}

/// What the front of a lane is at a given time.
#[derive(Debug)]
pub(super) enum Front {
    Data(BytesMut),
    /// A delay is over.
    Late(Firing, Duration),
    Hold(Firing),
    End(EndKind, Option<Firing>),
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Lane {
    pub gate: Gate,
    out: VecDeque<Out>,
    buffered: usize,
    /// When the pause at the front is over.
    paused_until: Option<Instant>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self { gate: Gate::Open, out: VecDeque::new(), buffered: 0, paused_until: None }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.gate, Gate::Open)
    }

    /// Whether what the sender sends gets to the other side at all.
    pub(super) fn reaches_the_peer(&self) -> bool {
        !matches!(self.gate, Gate::Lost(_) | Gate::Closed)
    }

    /// Bytes that wait to go on.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffered
    }

    /// Takes bytes as the gate says.
    pub(super) fn push(&mut self, mut bytes: BytesMut) {
        match &self.gate {
            Gate::Open => self.push_past_the_gate(bytes),
            Gate::Slow { bytes: piece_bytes, every, .. } => {
                let (piece_bytes, every) = (*piece_bytes, *every);
                while !bytes.is_empty() {
                    self.out.push_back(Out::Pause(every));
                    let piece = bytes.split_to(piece_bytes.min(bytes.len()));
                    self.buffered += piece.len();
                    self.out.push_back(Out::Data(piece));
                }
            }
            Gate::Discard(_) | Gate::Lost(_) | Gate::Closed => {}
        }
    }

    /// Takes bytes whatever the gate says.
    pub(super) fn push_past_the_gate(&mut self, bytes: BytesMut) {
        if bytes.is_empty() {
            return;
        }
        self.buffered += bytes.len();
        if let Some(Out::Data(last)) = self.out.back_mut()
            && last.as_ptr().wrapping_add(last.len()) == bytes.as_ptr()
        {
            last.unsplit(bytes);
            return;
        }
        self.out.push_back(Out::Data(bytes));
    }

    pub(super) fn push_mark(&mut self, mark: Out) {
        self.out.push_back(mark);
    }

    /// Ends the connection after what is under way.
    pub(super) fn close(&mut self, kind: EndKind, firing: Option<Firing>) {
        self.out.push_back(Out::End(kind, firing));
        self.gate = Gate::Closed;
    }

    /// Hands on the front, if its time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Front> {
        if let Gate::Lost(firing) = &self.gate
            && firing.grip.state() != GripState::Holding
        {
            self.close(EndKind::Cut, None);
        }
        loop {
            match self.out.front()? {
                Out::Until { at, firing, .. } => match firing.grip.state() {
                    GripState::Cut => return Some(Front::End(EndKind::Cut, None)),
                    GripState::Holding if now < *at => return None,
                    GripState::Holding | GripState::Passed | GripState::Removed => {}
                },
                Out::Pause(length) => {
                    let until = *self.paused_until.get_or_insert(now + *length);
                    if now < until {
                        return None;
                    }
                    self.paused_until = None;
                    self.out.pop_front();
                    continue;
                }
                Out::Data(_) | Out::Hold(_) | Out::End(..) => {}
            }
            return match self.out.pop_front()? {
                Out::Data(bytes) => {
                    self.buffered -= bytes.len();
                    Some(Front::Data(bytes))
                }
                Out::Until { since, firing, .. } => Some(Front::Late(firing, now.saturating_duration_since(since))),
                Out::Hold(firing) => Some(Front::Hold(firing)),
                Out::End(kind, firing) => Some(Front::End(kind, firing)),
                Out::Pause(_) => None,
            };
        }
    }

    /// When the front's time comes, if it waits for one.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.out.front()? {
            Out::Until { at, .. } => Some(*at),
            Out::Pause(_) => self.paused_until,
            Out::Data(_) | Out::Hold(_) | Out::End(..) => None,
        }
    }
}
