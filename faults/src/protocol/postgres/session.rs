//! One connection to PostgreSQL, followed message by message in both directions.
//!
//! Each message of the server is held against what the client is owed. Where they do not fit, or
//! the bytes are no messages, the connection is given up: everything passes, nothing is told.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;

use super::{
    fingerprint::{Fingerprint, Kind},
    frames::{Framer, Step},
    messages::{
        CANCEL_REQUEST, GSS_REQUEST, PROTOCOL_MAJOR, SSL_REQUEST, split_name, sqlstate, wanted_of_client,
        wanted_of_server,
    },
    transaction::{PostgresOperation, Transaction},
    writing_functions::WritingFunctions,
};
use crate::protocol::{
    operation::{Operation, Outcome},
    piece::{Piece, Request, RequestId, Session, push_bytes},
};

/// Prepared statements and portals remembered, each.
const NAMES_MAX: usize = 4_096;
/// Messages the client may be owed an answer to.
const EXPECTED_MAX: usize = 16_384;

/// An answer that the client is owed.
#[derive(Debug)]
enum Expected {
    Login(RequestId),
    Parse,
    Bind,
    Close,
    Describe,
    Execute(Owed),
    /// A query string or a function call; ends with ReadyForQuery.
    Query(Owed),
    /// Ends an extended query; the request whose transaction is committed with it.
    Sync(Option<RequestId>),
}

#[derive(Debug)]
struct Owed {
    id: RequestId,
    started: bool,
    /// It is decided only by the Sync after it.
    until_ready: bool,
    /// A command tag ROLLBACK is the answer to a COMMIT.
    rollback_is_refusal: bool,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Login,
    /// The server's one byte on encryption is awaited.
    Encryption,
    Normal,
    Untracked,
}

type Lost = &'static str;
const UNEXPECTED: Lost = "the server answered what was not asked";

/// See the module.
pub struct PostgresSession {
    client: Framer,
    server: Framer,
    phase: Phase,
    requests: RequestId,
    functions: WritingFunctions,
    statements: BTreeMap<Vec<u8>, Fingerprint>,
    portals: BTreeMap<Vec<u8>, Fingerprint>,
    expected: VecDeque<Expected>,
    transaction: Transaction,
    /// The request that commits with the next Sync.
    commits_with_sync: Option<RequestId>,
    /// Such a request whose answer has begun.
    begun: Option<RequestId>,
    /// After an error the server ignores everything up to a Sync that has not come yet.
    ignored_to_sync: bool,
    /// The error of the extended query that is being answered.
    cycle_error: Option<String>,
    copy_in: bool,
    /// The request whose bytes are passing.
    sending: Option<RequestId>,
    /// What to tell at the end of the server's current message.
    after: Vec<Piece>,
}

impl Default for PostgresSession {
    fn default() -> Self {
        Self {
            client: Framer::new(false, wanted_of_client),
            server: Framer::new(true, wanted_of_server),
            phase: Phase::Login,
            requests: 0,
            functions: WritingFunctions::default(),
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            expected: VecDeque::new(),
            transaction: Transaction::default(),
            commits_with_sync: None,
            begun: None,
            ignored_to_sync: false,
            cycle_error: None,
            copy_in: false,
            sending: None,
            after: Vec::new(),
        }
    }
}

impl Session for PostgresSession {
    fn client_bytes(&mut self, bytes: BytesMut, pieces: &mut Vec<Piece>) {
        self.client.push(bytes);
        if self.phase == Phase::Untracked {
            return push_bytes(pieces, self.client.take_all());
        }
        while let Some(step) = self.client.next_step() {
            let told = match step {
                Step::Start { tag, body, whole } => self.client_message(tag, &body, whole),
                Step::End => {
                    if let Some(id) = self.sending.take() {
                        push_bytes(pieces, self.client.take());
                        pieces.push(Piece::RequestEnd(id));
                    }
                    Ok(None)
                }
                Step::Garbage => Err("the client's bytes are no messages"),
            };
            match told {
                Ok(Some(operation)) => {
                    push_bytes(pieces, self.client.take());
                    let id = self.requests - 1;
                    self.sending = Some(id);
                    pieces.push(Piece::Request(Request { id, operation: Operation::Postgres(operation) }));
                }
                Ok(None) => {}
                Err(reason) => {
                    push_bytes(pieces, self.client.take());
                    self.give_up(reason, pieces);
                    return push_bytes(pieces, self.client.take_all());
                }
            }
        }
        push_bytes(pieces, self.client.take());
    }

    fn server_bytes(&mut self, bytes: BytesMut, pieces: &mut Vec<Piece>) {
        self.server.push(bytes);
        if self.phase == Phase::Encryption {
            match self.server.lone_byte() {
                Some(b'N') => self.phase = Phase::Login,
                Some(_) => {
                    self.give_up("the connection is encrypted", pieces);
                }
                None => {}
            }
        }
        if self.phase == Phase::Untracked {
            return push_bytes(pieces, self.server.take_all());
        }
        while let Some(step) = self.server.next_step() {
            let told = match step {
                Step::Start { tag, body, .. } => {
                    let mut before = Vec::new();
                    let told = self.server_message(tag, &body, &mut before);
                    if !before.is_empty() {
                        push_bytes(pieces, self.server.take());
                        pieces.append(&mut before);
                    }
                    told
                }
                Step::End => {
                    if !self.after.is_empty() {
                        push_bytes(pieces, self.server.take());
                        pieces.append(&mut self.after);
                    }
                    Ok(())
                }
                Step::Garbage => Err("the server's bytes are no messages"),
            };
            if let Err(reason) = told {
                push_bytes(pieces, self.server.take());
                self.give_up(reason, pieces);
                return push_bytes(pieces, self.server.take_all());
            }
        }
        push_bytes(pieces, self.server.take());
    }

    fn client_ended(&mut self, pieces: &mut Vec<Piece>) {
        push_bytes(pieces, self.client.take_all());
    }

    fn server_ended(&mut self, pieces: &mut Vec<Piece>) {
        push_bytes(pieces, self.server.take_all());
    }

    fn swallow(&mut self, _: RequestId, _: bool) -> bool {
        // An error ends the connection, so nothing is answered in order after it.
        true
    }

    fn at_answer_boundary(&self) -> bool {
        self.server.is_between()
    }
}

impl PostgresSession {
    /// A session that knows which functions write.
    pub fn new(functions: WritingFunctions) -> Self {
        Self { functions, ..Self::default() }
    }

    fn give_up(&mut self, reason: Lost, pieces: &mut Vec<Piece>) {
        self.phase = Phase::Untracked;
        self.expected.clear();
        self.after.clear();
        self.sending = None;
        pieces.push(Piece::Untracked(reason));
    }

    fn next_id(&mut self) -> RequestId {
        self.requests += 1;
        self.requests - 1
    }

    /// Says what request begins with the message, if one does.
    fn client_message(&mut self, tag: u8, body: &[u8], whole: bool) -> Result<Option<PostgresOperation>, Lost> {
        if tag == 0 {
            return self.login_message(body);
        }
        if tag == b'S' {
            // While rows are copied in, the server passes over it.
            if !self.copy_in {
                self.ignored_to_sync = false;
                let commit = self.commits_with_sync.take();
                self.expect(Expected::Sync(commit))?;
            }
            return Ok(None);
        }
        if matches!(tag, b'c' | b'f') {
            self.copy_in = false;
        }
        if self.ignored_to_sync {
            return Ok(None);
        }
        match tag {
            b'Q' => {
                let (sql, _) = split_name(body);
                let operation = self.transaction.take(Fingerprint::of_query(sql, !whole, &self.functions));
                self.expect_query(operation).map(Some)
            }
            b'F' => {
                let operation = self.transaction.take(vec![Fingerprint::of_act("<function call>")]);
                self.expect_query(operation).map(Some)
            }
            b'P' => {
                let (name, rest) = split_name(body);
                let (sql, _) = split_name(rest);
                // Without its closing zero byte the text goes on.
                let statement = Fingerprint::of_query(sql, sql.len() == rest.len(), &self.functions)
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| Fingerprint::of_act("<empty>"));
                remember(&mut self.statements, name, statement);
                self.expect(Expected::Parse)?;
                Ok(None)
            }
            b'B' => {
                let (portal, rest) = split_name(body);
                let (name, _) = split_name(rest);
                let statement = self.statements.get(name).cloned();
                remember(&mut self.portals, portal, statement.unwrap_or_else(unknown));
                self.expect(Expected::Bind)?;
                Ok(None)
            }
            b'E' => {
                let (portal, _) = split_name(body);
                let statement = self.portals.get(portal).cloned().unwrap_or_else(unknown);
                self.expect_execute(statement).map(Some)
            }
            b'C' => {
                match body.split_first() {
                    Some((b'S', name)) => self.statements.remove(split_name(name).0),
                    Some((_, name)) => self.portals.remove(split_name(name).0),
                    None => None,
                };
                self.expect(Expected::Close)?;
                Ok(None)
            }
            b'D' => {
                self.expect(Expected::Describe)?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn login_message(&mut self, body: &[u8]) -> Result<Option<PostgresOperation>, Lost> {
        let code = body.try_into().map(u32::from_be_bytes).map_err(|_| "the first message is too short")?;
        let act = |name| PostgresOperation { statements: vec![Fingerprint::of_act(name)], commit: None };
        match code {
            SSL_REQUEST | GSS_REQUEST => {
                self.phase = Phase::Encryption;
                Ok(None)
            }
            CANCEL_REQUEST => {
                self.next_id();
                Ok(Some(act("<cancel request>")))
            }
            _ if code >> 16 == PROTOCOL_MAJOR => {
                self.client.expect_tags();
                self.phase = Phase::Normal;
                let id = self.next_id();
                self.expect(Expected::Login(id))?;
                Ok(Some(act("<login>")))
            }
            _ => Err("another version of the protocol"),
        }
    }

    fn expect(&mut self, expected: Expected) -> Result<(), Lost> {
        if self.expected.len() >= EXPECTED_MAX {
            return Err("too many requests without an answer");
        }
        self.expected.push_back(expected);
        Ok(())
    }

    fn expect_query(&mut self, operation: PostgresOperation) -> Result<PostgresOperation, Lost> {
        let owed = self.owed(&operation);
        self.expect(Expected::Query(owed))?;
        Ok(operation)
    }

    fn expect_execute(&mut self, statement: Fingerprint) -> Result<PostgresOperation, Lost> {
        let mut operation = self.transaction.take(vec![statement]);
        let mut owed = self.owed(&operation);
        if operation.commit.as_ref().is_some_and(|commit| !commit.explicit) {
            if self.commits_with_sync.is_some() {
                // Several statements up to one Sync are one transaction; the first stands for it.
                operation.commit = None;
            } else {
                self.commits_with_sync = Some(owed.id);
                owed.until_ready = true;
            }
        }
        self.expect(Expected::Execute(owed))?;
        Ok(operation)
    }

    fn owed(&mut self, operation: &PostgresOperation) -> Owed {
        let rolls_back = operation.statements.iter().any(|statement| matches!(statement.kind, Kind::Rollback { .. }));
        let commits = operation.commit.as_ref().is_some_and(|commit| commit.explicit);
        Owed {
            id: self.next_id(),
            started: false,
            until_ready: false,
            rollback_is_refusal: commits && !rolls_back,
            outcome: Outcome::Done,
        }
    }

    /// Holds a message of the server against what is expected. `before`: what to tell before its
    /// first byte; what is to be told after its last goes to `self.after`.
    fn server_message(&mut self, tag: u8, body: &[u8], before: &mut Vec<Piece>) -> Result<(), Lost> {
        match tag {
            // Notices, settings and notifications may come at any time; the rest needs no partner.
            b'A' | b'N' | b'S' | b'K' | b'R' | b'v' | b'c' | b'd' | b't' => Ok(()),
            b'1' => self.pop(|expected| matches!(expected, Expected::Parse)),
            b'2' => self.pop(|expected| matches!(expected, Expected::Bind)),
            b'3' => self.pop(|expected| matches!(expected, Expected::Close)),
            b'n' => self.pop(|expected| matches!(expected, Expected::Describe)),
            b'T' if matches!(self.expected.front(), Some(Expected::Describe)) => {
                self.expected.pop_front();
                Ok(())
            }
            b'D' | b'H' | b'T' | b'V' => self.start_front(before),
            b'C' | b'I' | b's' => self.complete(body, before),
            b'G' => self.start_copy_in(),
            b'E' => {
                self.error(&sqlstate(body), before);
                Ok(())
            }
            b'Z' => self.ready(body, before),
            _ => Err("the connection turned to replication"),
        }
    }

    fn pop(&mut self, fits: fn(&Expected) -> bool) -> Result<(), Lost> {
        if self.expected.front().is_some_and(fits) {
            self.expected.pop_front();
            return Ok(());
        }
        Err(UNEXPECTED)
    }

    fn start_front(&mut self, before: &mut Vec<Piece>) -> Result<(), Lost> {
        let Some(Expected::Execute(owed) | Expected::Query(owed)) = self.expected.front_mut() else {
            return Err(UNEXPECTED);
        };
        if !owed.started {
            owed.started = true;
            before.push(Piece::AnswerStart(owed.id));
            if owed.until_ready {
                self.begun = Some(owed.id);
            }
        }
        Ok(())
    }

    fn complete(&mut self, body: &[u8], before: &mut Vec<Piece>) -> Result<(), Lost> {
        self.start_front(before)?;
        if let Some(Expected::Execute(owed) | Expected::Query(owed)) = self.expected.front_mut()
            && owed.rollback_is_refusal
            && split_name(body).0 == b"ROLLBACK"
        {
            owed.outcome = Outcome::RolledBack;
        }
        if matches!(self.expected.front(), Some(Expected::Execute(_)))
            && let Some(Expected::Execute(owed)) = self.expected.pop_front()
            && !owed.until_ready
        {
            self.after.push(Piece::AnswerEnd(owed.id, owed.outcome));
        }
        Ok(())
    }

    /// The client must see it to go on, so it belongs to no answer. A Sync that was sent with the
    /// statement is passed over by the server; the one after the rows counts.
    fn start_copy_in(&mut self) -> Result<(), Lost> {
        self.copy_in = true;
        match self.expected.front() {
            Some(Expected::Query(_)) => Ok(()),
            Some(Expected::Execute(_)) => {
                let mut commit = None;
                self.expected.retain(|expected| match expected {
                    Expected::Sync(id) => {
                        commit = commit.or(*id);
                        false
                    }
                    _ => true,
                });
                self.commits_with_sync = self.commits_with_sync.or(commit);
                Ok(())
            }
            _ => Err(UNEXPECTED),
        }
    }

    fn error(&mut self, code: &str, before: &mut Vec<Piece>) {
        self.copy_in = false;
        let refused = Outcome::Refused { code: code.into() };
        match self.expected.front_mut() {
            Some(Expected::Login(id)) => {
                before.push(Piece::AnswerStart(*id));
                self.after.push(Piece::AnswerEnd(*id, refused));
                self.expected.pop_front();
            }
            Some(Expected::Query(owed)) => {
                owed.outcome = refused;
                if !owed.started {
                    owed.started = true;
                    before.push(Piece::AnswerStart(owed.id));
                }
            }
            Some(Expected::Sync(_)) => self.cycle_error = Some(code.into()),
            Some(_) => {
                self.cycle_error = Some(code.into());
                self.skip_to_sync(&refused, before);
            }
            // The server ends the connection by itself.
            None => {}
        }
    }

    /// The front failed: it and all up to the next Sync get no other answer.
    fn skip_to_sync(&mut self, refused: &Outcome, before: &mut Vec<Piece>) {
        let mut first = true;
        while let Some(expected) = self.expected.pop_front() {
            match expected {
                Expected::Execute(owed) => {
                    let outcome = if first { refused.clone() } else { Outcome::NotRun };
                    if first && !owed.started {
                        before.push(Piece::AnswerStart(owed.id));
                        self.begun = owed.until_ready.then_some(owed.id).or(self.begun);
                    }
                    if !owed.until_ready {
                        if !first {
                            self.after.push(Piece::AnswerStart(owed.id));
                        }
                        self.after.push(Piece::AnswerEnd(owed.id, outcome));
                    }
                }
                Expected::Sync(_) => {
                    self.expected.push_front(expected);
                    return;
                }
                // Ignored as well, if a client sends it in such a place.
                Expected::Query(owed) => {
                    self.after.push(Piece::AnswerStart(owed.id));
                    self.after.push(Piece::AnswerEnd(owed.id, Outcome::NotRun));
                }
                Expected::Login(_) | Expected::Parse | Expected::Bind | Expected::Close | Expected::Describe => {}
            }
            first = false;
        }
        self.ignored_to_sync = true;
    }

    fn ready(&mut self, body: &[u8], before: &mut Vec<Piece>) -> Result<(), Lost> {
        let error = self.cycle_error.take();
        match self.expected.pop_front() {
            Some(Expected::Login(id)) => {
                before.push(Piece::AnswerStart(id));
                self.after.push(Piece::AnswerEnd(id, Outcome::Done));
            }
            Some(Expected::Query(owed)) => {
                if !owed.started {
                    before.push(Piece::AnswerStart(owed.id));
                }
                self.after.push(Piece::AnswerEnd(owed.id, owed.outcome));
            }
            Some(Expected::Sync(Some(id))) => {
                if self.begun.take() != Some(id) {
                    before.push(Piece::AnswerStart(id));
                }
                let outcome = error.map_or(Outcome::Done, |code| Outcome::Refused { code });
                self.after.push(Piece::AnswerEnd(id, outcome));
            }
            Some(Expected::Sync(None)) => {}
            _ => return Err(UNEXPECTED),
        }
        if self.expected.is_empty()
            && let Some(status) = body.first()
        {
            self.transaction.correct(*status != b'I');
        }
        Ok(())
    }
}

fn unknown() -> Fingerprint {
    Fingerprint::of_act("<unknown statement>")
}

/// Beyond the bound some name is forgotten, and executions of it are of an unknown statement.
fn remember(names: &mut BTreeMap<Vec<u8>, Fingerprint>, name: &[u8], statement: Fingerprint) {
    if names.len() >= NAMES_MAX && !names.contains_key(name) {
        names.pop_first();
    }
    names.insert(name.to_vec(), statement);
}
