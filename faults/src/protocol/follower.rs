//! One connection under the rules: what its bytes are, and what becomes of them.
//!
//! No I/O and no clock. Bytes go in with [`Follower::feed`] and come out, in order and when
//! their time has come, of [`Follower::next`].

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::sync::watch;

use super::{
    book::RuleBook,
    grip::{Connection, Firing, GripState},
    http::{HttpSession, error_answer},
    lane::{EndKind, Front, Gate, Lane, Out},
    operation::{Operation, Outcome, Protocol},
    piece::{Piece, Request, RequestId, Session},
    postgres::{PostgresSession, WritingFunctions, fatal_error},
    redis::{DISCARD, RedisSession, ScriptNames, error_reply},
    rule::{Action, Place},
    tampering::{Tampered, Tampering},
};
use crate::network::Stream;

/// Bytes kept per direction before no more are read.
const BUFFERED_BYTES_MAX: usize = 256 * 1024;

/// What goes on to the other side.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    /// Bytes to send.
    Data(BytesMut),
    /// This direction is over: shut it down.
    Eof,
    /// Close both sides.
    Cut,
    /// Reset both sides.
    Reset,
}

/// See the module. Made by [`RuleBook::follow`].
pub struct Follower {
    book: RuleBook,
    connection: Connection,
    protocol: Protocol,
    session: Box<dyn Session>,
    up: Lane,
    down: Lane,
    /// Requests whose answers a rule waits for, or that are to be answered in the server's place.
    armed: BTreeMap<RequestId, Firing>,
    /// Answers under way that a rule acts on.
    begun: BTreeMap<RequestId, Firing>,
    /// Where requests stand in the list of points.
    listed: BTreeMap<RequestId, usize>,
    hold: Option<Hold>,
    /// A request that is not handed on and not over yet.
    swallowing: Option<RequestId>,
    /// Its turn has come before its end.
    turn_waits: Option<RequestId>,
    /// A fatal error to send when the server's last message has passed.
    fatal: Option<Firing>,
    tampering: Tampering,
}

/// Both directions silent.
#[derive(Debug)]
struct Hold {
    firing: Firing,
    until: Option<Instant>,
}

impl Follower {
    pub(super) fn new(
        book: RuleBook,
        connection: Connection,
        protocol: Protocol,
        scripts: ScriptNames,
        functions: WritingFunctions,
    ) -> Self {
        let session: Box<dyn Session> = match protocol {
            Protocol::Postgres => Box::new(PostgresSession::new(functions)),
            Protocol::Redis => Box::new(RedisSession::new(scripts)),
            Protocol::Http => Box::new(HttpSession::default()),
        };
        Self {
            book,
            connection,
            protocol,
            session,
            up: Lane::new(),
            down: Lane::new(),
            armed: BTreeMap::new(),
            begun: BTreeMap::new(),
            listed: BTreeMap::new(),
            hold: None,
            swallowing: None,
            turn_waits: None,
            fatal: None,
            tampering: Tampering::default(),
        }
    }

    /// Takes bytes that came from the client (upstream) or from the server (downstream).
    pub fn feed(&mut self, stream: Stream, bytes: BytesMut, now: Instant) {
        let mut pieces = Vec::new();
        match stream {
            Stream::Upstream => self.session.client_bytes(bytes, &mut pieces),
            Stream::Downstream => self.session.server_bytes(bytes, &mut pieces),
        }
        self.take(stream, pieces, now);
    }

    /// The client (upstream) or the server (downstream) sends no more.
    pub fn end(&mut self, stream: Stream, now: Instant) {
        let mut pieces = Vec::new();
        match stream {
            Stream::Upstream => self.session.client_ended(&mut pieces),
            Stream::Downstream => self.session.server_ended(&mut pieces),
        }
        self.take(stream, pieces, now);
        let lane = self.lane(stream);
        if !matches!(lane.gate, Gate::Closed) {
            lane.push_mark(Out::End(EndKind::Eof, None));
        }
        if stream == Stream::Downstream {
            self.answers_are_over();
        }
    }

    /// Whether more may be read from the client (upstream) or from the server (downstream).
    pub fn has_room(&self, stream: Stream) -> bool {
        let lane = match stream {
            Stream::Upstream => &self.up,
            Stream::Downstream => &self.down,
        };
        // Silence means that nothing is read, except to know that the server did its work.
        let is_wanted = self.hold.is_none() || (stream == Stream::Downstream && !self.begun.is_empty());
        is_wanted && lane.buffered_bytes() < BUFFERED_BYTES_MAX
    }

    /// What goes to the server (upstream) or to the client (downstream) next; none for now.
    pub fn next(&mut self, stream: Stream, now: Instant) -> Option<Passed> {
        loop {
            if let Some(hold) = &self.hold {
                match hold.firing.grip.state() {
                    GripState::Cut | GripState::Removed => return Some(Passed::Cut),
                    GripState::Holding if hold.until.is_none_or(|until| now < until) => return None,
                    GripState::Holding | GripState::Passed => self.hold = None,
                }
            }
            match self.lane(stream).pop(now)? {
                Front::Data(bytes) => return Some(Passed::Data(bytes)),
                Front::Late(firing, late) => self.observed(&firing, Some(late)),
                Front::Hold(firing) => self.start_hold(firing, now),
                Front::End(kind, firing) => {
                    if let Some(firing) = firing {
                        self.observed(&firing, None);
                    }
                    return Some(match kind {
                        EndKind::Eof => Passed::Eof,
                        EndKind::Cut => Passed::Cut,
                        EndKind::Reset => Passed::Reset,
                    });
                }
            }
        }
    }

    /// When [`Self::next`] may have something although nothing was fed.
    pub fn due(&self) -> Option<Instant> {
        match &self.hold {
            Some(hold) => hold.until,
            None => self.up.due().into_iter().chain(self.down.due()).min(),
        }
    }

    /// Wakes when a rule lets go; [`Self::next`] may have something then.
    pub fn releases(&self) -> watch::Receiver<u64> {
        self.book.releases()
    }

    fn lane(&mut self, stream: Stream) -> &mut Lane {
        match stream {
            Stream::Upstream => &mut self.up,
            Stream::Downstream => &mut self.down,
        }
    }

    fn take(&mut self, stream: Stream, pieces: Vec<Piece>, now: Instant) {
        for piece in pieces {
            match piece {
                Piece::Bytes(mut bytes) => {
                    if stream == Stream::Upstream {
                        self.tamper(&mut bytes);
                    }
                    self.lane(stream).push(bytes);
                }
                Piece::Request(request) => self.request(request, now),
                Piece::RequestBody(id) => self.tampering.body(id),
                Piece::RequestEnd(id) => self.request_end(id),
                Piece::AnswerStart(id) => self.answer_start(id, now),
                Piece::AnswerBody(id) => self.answer_body(id),
                Piece::AnswerEnd(id, outcome) => self.answer_end(id, &outcome),
                Piece::Turn(id) => self.turn(id),
                Piece::Untracked(reason) => self.untracked(reason),
            }
        }
        self.send_fatal();
    }

    fn request(&mut self, request: Request, now: Instant) {
        if !self.up.reaches_the_peer() {
            return;
        }
        if let Some(at) = self.book.list(&self.connection, &request.operation) {
            self.listed.insert(request.id, at);
        }
        let Some(firing) = self.book.consider(&self.connection, &request.operation) else { return };
        match firing.place {
            Place::BeforeClient => {
                self.armed.insert(request.id, firing);
            }
            Place::BeforeServer => self.hit_request(&request, firing, now),
        }
    }

    fn hit_request(&mut self, request: &Request, firing: Firing, now: Instant) {
        let id = request.id;
        match firing.action.clone() {
            Action::Late { ms } => self.up.push_mark(delay(ms, firing, now)),
            Action::Hold { .. } => self.up.push_mark(Out::Hold(firing)),
            Action::Cut => self.up.close(EndKind::Cut, Some(firing)),
            Action::Reset => self.up.close(EndKind::Reset, Some(firing)),
            Action::Drop => {
                self.observed(&firing, None);
                self.up.gate = Gate::Lost(firing);
            }
            Action::Slow { bytes, every_ms } => {
                self.up.gate = Gate::Slow { id, bytes, every: Duration::from_millis(every_ms) };
                self.armed.insert(id, firing);
            }
            Action::Twice => self.tampering.keep(id, firing),
            Action::Forge => self.tampering.forge(id, firing),
            Action::Error { .. } => self.answer_in_its_place(request, firing),
        }
    }

    fn tamper(&mut self, bytes: &mut BytesMut) {
        match self.tampering.pass(bytes) {
            Some(Tampered::Forged(firing)) => self.observed(&firing, None),
            Some(Tampered::TooLong(firing)) => self.book.overruled(&self.connection, &firing),
            None => {}
        }
    }

    /// The server does not get the request, and the client gets an error.
    fn answer_in_its_place(&mut self, request: &Request, firing: Firing) {
        let id = request.id;
        if let Some(at) = self.listed.remove(&id) {
            self.book.list_outcome(at, &Outcome::NotRun);
        }
        match &request.operation {
            Operation::Postgres(_) => {
                self.up.gate = Gate::Lost(firing.clone());
                self.fatal = Some(firing);
            }
            Operation::Redis(operation) if operation.command == "EXEC" => {
                // Else the server would stay within the transaction.
                self.up.push(BytesMut::from(DISCARD));
                self.up.gate = Gate::Discard(id);
                self.armed.insert(id, firing);
                self.session.swallow(id, true);
            }
            Operation::Redis(_) | Operation::Http(_) => {
                self.up.gate = Gate::Discard(id);
                self.swallowing = Some(id);
                self.armed.insert(id, firing);
                if self.session.swallow(id, false) {
                    self.turn(id);
                }
            }
        }
    }

    fn request_end(&mut self, id: RequestId) {
        if let Some((firing, bytes)) = self.tampering.end(id)
            && firing.grip.state() == GripState::Holding
            && let Some(again) = self.session.again(id)
        {
            self.up.push(bytes);
            self.armed.insert(again, firing);
        }
        match &self.up.gate {
            Gate::Slow { id: slow, .. } if *slow == id => {
                self.up.gate = Gate::Open;
                if let Some(firing) = self.armed.remove(&id) {
                    self.observed(&firing, None);
                }
            }
            Gate::Discard(discarded) if *discarded == id => self.up.gate = Gate::Open,
            _ => {}
        }
        if self.swallowing == Some(id) {
            self.swallowing = None;
            if self.turn_waits.take_if(|waits| *waits == id).is_some() {
                self.turn(id);
            }
        }
    }

    /// All answers before it have passed. The error goes out once the request has come in whole.
    fn turn(&mut self, id: RequestId) {
        if self.swallowing == Some(id) {
            self.turn_waits = Some(id);
            return;
        }
        let Some(firing) = self.armed.remove(&id) else { return };
        if self.down.is_open() {
            self.down.push(self.error_bytes(&firing.action));
            self.observed(&firing, None);
        } else {
            self.book.overruled(&self.connection, &firing);
        }
    }

    fn answer_start(&mut self, id: RequestId, now: Instant) {
        // A slow request is answered as any other.
        if self
            .armed
            .get(&id)
            .is_some_and(|firing| firing.place == Place::BeforeServer && matches!(firing.action, Action::Slow { .. }))
        {
            return;
        }
        let Some(firing) = self.armed.remove(&id) else { return };
        // Nobody asked for a second answer, whatever has become of the rule.
        if firing.grip.state() != GripState::Holding && firing.action != Action::Twice {
            // The rule was healed while the answer was waited for.
            return;
        }
        if !self.down.is_open() {
            self.book.overruled(&self.connection, &firing);
            return;
        }
        match firing.action {
            Action::Late { ms } => self.down.push_mark(delay(ms, firing.clone(), now)),
            Action::Hold { .. } => self.down.push_mark(Out::Hold(firing.clone())),
            Action::Slow { .. } | Action::Forge => {}
            Action::Drop | Action::Cut | Action::Reset | Action::Twice | Action::Error { .. } => {
                self.down.gate = Gate::Discard(id);
            }
        }
        self.begun.insert(id, firing);
    }

    fn answer_body(&mut self, id: RequestId) {
        if let Some(Firing { action: Action::Slow { bytes, every_ms }, .. }) = self.begun.get(&id) {
            self.down.gate = Gate::Slow { id, bytes: *bytes, every: Duration::from_millis(*every_ms) };
        }
    }

    fn answer_end(&mut self, id: RequestId, outcome: &Outcome) {
        if let Some(at) = self.listed.remove(&id) {
            self.book.list_outcome(at, outcome);
        }
        let Some(firing) = self.begun.remove(&id) else { return };
        if firing.place == Place::BeforeClient || firing.action == Action::Twice {
            self.book.confirmed(&self.connection, &firing, outcome);
        }
        match firing.action {
            // Told when it goes on.
            Action::Late { .. } | Action::Forge => {}
            Action::Twice => {
                self.down.gate = Gate::Open;
                self.observed(&firing, None);
            }
            Action::Hold { .. } => self.observed(&firing, None),
            Action::Slow { .. } => {
                self.down.gate = Gate::Open;
                self.observed(&firing, None);
            }
            Action::Drop => {
                self.observed(&firing, None);
                self.down.gate = Gate::Lost(firing);
            }
            Action::Cut => self.down.close(EndKind::Cut, Some(firing)),
            Action::Reset => self.down.close(EndKind::Reset, Some(firing)),
            Action::Error { .. } => {
                self.down.push_past_the_gate(self.error_bytes(&firing.action));
                if self.protocol == Protocol::Postgres {
                    self.down.close(EndKind::Cut, Some(firing));
                } else {
                    self.down.gate = Gate::Open;
                    self.observed(&firing, None);
                }
            }
        }
    }

    /// The server is gone: what was waited for does not come.
    fn answers_are_over(&mut self) {
        for firing in std::mem::take(&mut self.begun).into_values() {
            self.book.confirmed(&self.connection, &firing, &Outcome::Unanswered);
        }
        for at in std::mem::take(&mut self.listed).into_values() {
            self.book.list_outcome(at, &Outcome::Unanswered);
        }
    }

    fn untracked(&mut self, reason: &str) {
        self.book.untracked(&self.connection, reason);
        self.answers_are_over();
        // Where a second answer begins is not known any more.
        if self.armed.values().any(|firing| firing.action == Action::Twice) {
            self.down.close(EndKind::Cut, None);
        }
        self.armed.clear();
        self.tampering = Tampering::default();
        // What is half withheld cannot be mended.
        for lane in [&mut self.up, &mut self.down] {
            match lane.gate {
                Gate::Discard(_) => lane.close(EndKind::Cut, None),
                Gate::Slow { .. } => lane.gate = Gate::Open,
                Gate::Open | Gate::Lost(_) | Gate::Closed => {}
            }
        }
    }

    fn send_fatal(&mut self) {
        if self.fatal.is_some()
            && self.down.is_open()
            && self.session.at_answer_boundary()
            && let Some(firing) = self.fatal.take()
        {
            self.down.push(self.error_bytes(&firing.action));
            self.down.close(EndKind::Cut, Some(firing));
        }
    }

    fn start_hold(&mut self, firing: Firing, now: Instant) {
        let until = match firing.action {
            Action::Hold { ms: Some(ms) } => Some(now + Duration::from_millis(ms)),
            _ => None,
        };
        // Before the client it is told when the server's answer is known.
        if firing.place == Place::BeforeServer {
            self.observed(&firing, None);
        }
        self.hold = Some(Hold { firing, until });
    }

    fn error_bytes(&self, action: &Action) -> BytesMut {
        let Action::Error { code, text, retry_after_s } = action else { return BytesMut::new() };
        let text = text.as_deref();
        let bytes = match self.protocol {
            Protocol::Postgres => fatal_error(code, text),
            Protocol::Redis => error_reply(code, text),
            // Rules are checked, so the code is a status.
            Protocol::Http => error_answer(code.parse().unwrap_or(500), text, *retry_after_s),
        };
        BytesMut::from(bytes.as_slice())
    }

    fn observed(&self, firing: &Firing, late: Option<Duration>) {
        let late_ms = late.map(|late| u64::try_from(late.as_millis()).unwrap_or(u64::MAX));
        self.book.observed(&self.connection, firing, late_ms);
    }
}

fn delay(ms: u64, firing: Firing, now: Instant) -> Out {
    Out::Until { since: now, at: now + Duration::from_millis(ms), firing }
}
