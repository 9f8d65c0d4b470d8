//! What a session tells of conversations as clients and servers hold them.

use proptest::prelude::*;

use super::session::PostgresSession;
use crate::protocol::piece::{
    Session,
    tests::{Side, Trace, trace_in_pieces},
};

type Turn = (Side, Vec<u8>);

fn message(tag: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&u32::try_from(body.len() + 4).expect("short").to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn untagged(code: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(rest.len() + 8).expect("short").to_be_bytes().to_vec();
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"])
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"])
}

fn bind(statement: &str) -> Vec<u8> {
    message(b'B', &[b"\0", statement.as_bytes(), b"\0\0\x01\0\x01\0\0"])
}

fn execute() -> Vec<u8> {
    message(b'E', &[b"\0\0\0\0\0"])
}

fn close_portal() -> Vec<u8> {
    message(b'C', &[b"P\0"])
}

fn describe(statement: &str) -> Vec<u8> {
    message(b'D', &[b"S", statement.as_bytes(), b"\0"])
}

fn sync() -> Vec<u8> {
    message(b'S', &[])
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[&[status]])
}

fn complete(tag: &str) -> Vec<u8> {
    message(b'C', &[tag.as_bytes(), b"\0"])
}

fn empty(tag: u8) -> Vec<u8> {
    message(tag, &[])
}

fn row() -> Vec<u8> {
    message(b'D', &[&[0; 40]])
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', &[b"SERROR\0VERROR\0C", code.as_bytes(), b"\0Mno\0\0"])
}

fn login() -> Vec<Turn> {
    vec![
        (Side::Client, untagged(80_877_103, &[])),
        (Side::Server, b"N".to_vec()),
        (Side::Client, untagged(196_608, b"user\0app\0application_name\0worker\0\0")),
        (Side::Server, [message(b'R', &[&[0, 0, 0, 0]]), message(b'S', &[b"a\0b\0"]), ready(b'I')].concat()),
    ]
}

fn client(messages: &[Vec<u8>]) -> Turn {
    (Side::Client, messages.concat())
}

fn server(messages: &[Vec<u8>]) -> Turn {
    (Side::Server, messages.concat())
}

/// What is told after the login.
fn told(turns: &[Turn]) -> Vec<String> {
    let all = [login(), turns.to_vec()].concat();
    let trace = trace_in_pieces(&mut PostgresSession::default(), &all, &[]);
    let names: Vec<String> = trace.events.into_iter().map(|(_, name)| name).collect();
    assert!(names[0].starts_with("request 0: ") && names[0].ends_with("<login>"), "{names:?}");
    assert_eq!(names[1..4], ["sent 0", "answer 0", "end 0: done"]);
    names[4..].to_vec()
}

/// As [`told`], without the hashes.
fn told_short(turns: &[Turn]) -> Vec<String> {
    let is_hash = |word: &&str| !(word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
    told(turns).iter().map(|line| line.split(' ').filter(is_hash).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_simple_transaction_ends_with_an_explicit_commit() {
    let told = told_short(&[
        client(&[query("BEGIN")]),
        server(&[complete("BEGIN"), ready(b'T')]),
        client(&[query("INSERT INTO t VALUES (1)")]),
        server(&[complete("INSERT 0 1"), ready(b'T')]),
        client(&[query("COMMIT")]),
        server(&[complete("COMMIT"), ready(b'I')]),
    ]);
    assert_eq!(
        told,
        [
            "request 1: begin",
            "sent 1",
            "answer 1",
            "end 1: done",
            "request 2: insert into t values(?)",
            "sent 2",
            "answer 2",
            "end 2: done",
            "request 3: COMMIT of insert into t values(?)",
            "sent 3",
            "answer 3",
            "end 3: done",
        ]
    );
}

#[test]
fn a_prepared_statement_is_known_by_its_name_when_it_is_executed() {
    let told = told_short(&[
        client(&[parse("s1", "UPDATE jobs SET a = $1"), describe("s1"), sync()]),
        server(&[empty(b'1'), empty(b't'), empty(b'n'), ready(b'I')]),
        client(&[bind("s1"), execute(), close_portal(), sync()]),
        server(&[empty(b'2'), complete("UPDATE 1"), empty(b'3'), ready(b'I')]),
        client(&[bind("s1"), execute(), close_portal(), sync()]),
        server(&[empty(b'2'), complete("UPDATE 1"), empty(b'3'), ready(b'I')]),
    ]);
    assert_eq!(
        told,
        [
            "request 1: implicit COMMIT of update jobs set a = ?",
            "sent 1",
            "answer 1",
            "end 1: done",
            "request 2: implicit COMMIT of update jobs set a = ?",
            "sent 2",
            "answer 2",
            "end 2: done",
        ]
    );
}

#[test]
fn an_implicit_commit_is_done_when_the_server_is_ready_and_not_before() {
    let mut session = PostgresSession::default();
    let mut trace = trace_in_pieces(&mut session, &login(), &[]);
    let statement = [parse("", "DELETE FROM t"), bind(""), execute(), sync()].concat();
    trace.feed(&mut session, Side::Client, &statement);
    trace.events.clear();
    trace.feed(&mut session, Side::Server, &[empty(b'1'), empty(b'2'), complete("DELETE 1")].concat());
    assert_eq!(trace.names(), ["answer 1"], "the command is complete, its transaction is not");
    trace.feed(&mut session, Side::Server, &ready(b'I'));
    assert_eq!(trace.names(), ["answer 1", "end 1: done"]);
}

#[test]
fn commit_in_the_extended_protocol_is_a_commit() {
    let told = told_short(&[
        client(&[parse("", "BEGIN"), bind(""), execute(), parse("", "DELETE FROM t"), bind(""), execute()]),
        client(&[parse("", "COMMIT"), bind(""), execute(), sync()]),
        server(&[empty(b'1'), empty(b'2'), complete("BEGIN")]),
        server(&[empty(b'1'), empty(b'2'), complete("DELETE 3")]),
        server(&[empty(b'1'), empty(b'2'), complete("COMMIT"), ready(b'I')]),
    ]);
    assert_eq!(told[4], "request 3: COMMIT of delete from t");
    assert_eq!(told[6..], ["answer 1", "end 1: done", "answer 2", "end 2: done", "answer 3", "end 3: done"]);
}

#[test]
fn several_statements_up_to_one_sync_are_one_commit() {
    let told = told_short(&[
        client(&[parse("", "DELETE FROM t"), bind(""), execute(), parse("", "DELETE FROM u"), bind(""), execute()]),
        client(&[sync()]),
        server(&[empty(b'1'), empty(b'2'), complete("DELETE 0"), empty(b'1'), empty(b'2'), complete("DELETE 0")]),
        server(&[ready(b'I')]),
    ]);
    assert_eq!(
        told,
        [
            "request 1: implicit COMMIT of delete from t",
            "sent 1",
            "request 2: delete from u",
            "sent 2",
            "answer 1",
            "answer 2",
            "end 2: done",
            "end 1: done",
        ]
    );
}

#[test]
fn a_commit_of_a_failed_transaction_is_rolled_back() {
    let told = told(&[
        client(&[query("BEGIN")]),
        server(&[complete("BEGIN"), ready(b'T')]),
        client(&[query("INSERT INTO t VALUES (1)")]),
        server(&[error("23505"), ready(b'E')]),
        client(&[query("COMMIT")]),
        server(&[complete("ROLLBACK"), ready(b'I')]),
    ]);
    assert!(told.contains(&"end 2: refused 23505".into()), "{told:?}");
    assert!(told.contains(&"end 3: rolled back".into()), "{told:?}");
}

#[test]
fn after_an_error_the_rest_up_to_sync_is_not_run() {
    let told = told_short(&[
        client(&[parse("", "SELECT 1"), bind(""), execute(), parse("", "SELECT 2"), bind(""), execute(), sync()]),
        server(&[empty(b'1'), empty(b'2'), error("22012"), ready(b'I')]),
        client(&[query("SELECT 3")]),
        server(&[empty(b'T'), row(), complete("SELECT 1"), ready(b'I')]),
    ]);
    assert_eq!(told[4..8], ["answer 1", "end 1: refused 22012", "answer 2", "end 2: not run"]);
    assert_eq!(told[8..], ["request 3: select ?", "sent 3", "answer 3", "end 3: done"]);
}

#[test]
fn a_statement_that_does_not_parse_fails_its_implicit_commit() {
    let told = told_short(&[
        client(&[parse("", "DELETE FROM nowhere"), bind(""), execute(), sync()]),
        server(&[error("42P01"), ready(b'I')]),
    ]);
    assert_eq!(told[2..], ["answer 1", "end 1: refused 42P01"]);
}

#[test]
fn copying_in_belongs_to_one_statement_and_its_start_passes() {
    let data = message(b'd', &[&[7; 5_000]]);
    for (begin, end) in [
        (query("COPY t FROM STDIN"), vec![]),
        ([parse("", "COPY t FROM STDIN"), bind(""), execute(), sync()].concat(), vec![sync()]),
    ] {
        let extended = !end.is_empty();
        let opening = if extended { vec![empty(b'1'), empty(b'2'), empty(b'G')] } else { vec![empty(b'G')] };
        let told = told_short(&[
            client(&[begin]),
            server(&opening),
            client(&[data.clone(), data.clone(), empty(b'c')]),
            client(&end),
            server(&[complete("COPY 2"), ready(b'I')]),
        ]);
        assert_eq!(told, ["request 1: implicit COMMIT of copy t from stdin", "sent 1", "answer 1", "end 1: done"]);
    }
}

#[test]
fn copying_out_is_an_answer() {
    let told = told_short(&[
        client(&[query("COPY t TO STDOUT")]),
        server(&[empty(b'H'), message(b'd', &[&[7; 500]]), empty(b'c'), complete("COPY 1"), ready(b'I')]),
    ]);
    assert_eq!(told, ["request 1: copy t to stdout", "sent 1", "answer 1", "end 1: done"]);
}

#[test]
fn notices_and_notifications_come_at_any_time() {
    let told = told_short(&[
        server(&[message(b'A', &[b"12341234ch\0\0"]), message(b'N', &[b"\0"])]),
        client(&[query("SELECT 1")]),
        server(&[message(b'N', &[b"\0"]), empty(b'T'), message(b'S', &[b"a\0b\0"]), row()]),
        server(&[complete("SELECT 1"), ready(b'I')]),
    ]);
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn a_cancel_request_is_a_request_of_its_own() {
    let mut session = PostgresSession::default();
    let mut trace = Trace::default();
    trace.feed(&mut session, Side::Client, &untagged(80_877_102, &[0; 8]));
    assert!(trace.names()[0].ends_with("<cancel request>"), "{trace:?}");
}

#[test]
fn what_cannot_be_followed_passes_and_is_said() {
    let encrypted = [(Side::Client, untagged(80_877_103, &[])), (Side::Server, b"S".to_vec())];
    let other_version = [(Side::Client, untagged(131_072, b"x"))];
    let no_message = [(Side::Client, b"GET / HTTP/1.1\r\n\r\n".to_vec())];
    for turns in [&encrypted[..], &other_version, &no_message] {
        let trace = trace_in_pieces(&mut PostgresSession::default(), turns, &[]);
        assert!(matches!(trace.names().as_slice(), [one] if one.starts_with("untracked")), "{trace:?}");
    }
    let unasked = told(&[server(&[complete("SELECT 1")])]);
    assert!(unasked[0].starts_with("untracked"), "{unasked:?}");
}

#[test]
fn names_are_forgotten_when_they_are_closed() {
    let told = told_short(&[
        client(&[parse("s", "SELECT 1"), message(b'C', &[b"Ss\0"]), bind("s"), execute(), sync()]),
        server(&[empty(b'1'), empty(b'3'), error("26000"), ready(b'I')]),
    ]);
    assert!(told[0].ends_with("<unknown statement>"), "{told:?}");
}

/// A conversation with everything in it.
fn long_conversation() -> Vec<Turn> {
    let turns = vec![
        client(&[query("BEGIN; SELECT 1")]),
        server(&[complete("BEGIN"), empty(b'T'), row(), complete("SELECT 1"), ready(b'T')]),
        client(&[parse("s1", "INSERT INTO t VALUES ($1)"), describe("s1"), sync()]),
        server(&[empty(b'1'), empty(b't'), empty(b'n'), ready(b'T')]),
        client(&[bind("s1"), execute(), close_portal(), sync(), bind("s1"), execute(), sync()]),
        server(&[empty(b'2'), complete("INSERT 0 1"), empty(b'3'), ready(b'T')]),
        server(&[empty(b'2'), error("23505"), ready(b'E')]),
        client(&[query("COMMIT")]),
        server(&[complete("ROLLBACK"), ready(b'I')]),
        client(&[query("COPY t FROM STDIN")]),
        server(&[empty(b'G')]),
        client(&[message(b'd', &[&[1; 300]]), empty(b'c')]),
        server(&[complete("COPY 1"), ready(b'I')]),
        client(&[query(""), empty(b'X')]),
        server(&[empty(b'I'), ready(b'I')]),
    ];
    [login(), turns].concat()
}

proptest! {
    #[test]
    fn any_cut_of_a_conversation_tells_the_same(sizes in prop::collection::vec(1_usize..80, 1..20)) {
        let turns = long_conversation();
        let whole = trace_in_pieces(&mut PostgresSession::default(), &turns, &[]);
        let cut = trace_in_pieces(&mut PostgresSession::default(), &turns, &sizes);
        prop_assert_eq!(&whole, &cut);
        let of = |side: Side| turns.iter().filter(|turn| turn.0 == side).flat_map(|turn| turn.1.clone()).collect::<Vec<u8>>();
        prop_assert_eq!(cut.client, of(Side::Client));
        prop_assert_eq!(cut.server, of(Side::Server));
    }

    #[test]
    fn any_bytes_pass_unchanged(
        begins_well in any::<bool>(),
        turns in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..8),
    ) {
        pass_unchanged(begins_well, turns)?;
    }

    #[test]
    fn messages_in_any_order_pass_unchanged(picks in prop::collection::vec((any::<bool>(), 0_usize..24), 0..40)) {
        let some = [
            query("BEGIN"), query("COMMIT"), query("INSERT INTO t VALUES (1)"), parse("s", "SELECT 1"), bind("s"),
            execute(), sync(), close_portal(), describe("s"), empty(b'c'), empty(b'H'), empty(b'1'), empty(b'2'),
            empty(b'3'), empty(b'G'), empty(b'T'), row(), complete("COMMIT"), complete("ROLLBACK"), error("40001"),
            ready(b'I'), ready(b'T'), empty(b'n'), empty(b't'),
        ];
        let turns = picks.into_iter().map(|(client, pick)| (client, some[pick].clone())).collect();
        pass_unchanged(true, turns)?;
    }
}

fn pass_unchanged(begins_well: bool, turns: Vec<(bool, Vec<u8>)>) -> Result<(), TestCaseError> {
    let mut session = PostgresSession::default();
    let begin = if begins_well { login() } else { Vec::new() };
    let mut trace = trace_in_pieces(&mut session, &begin, &[]);
    let mut sent = Trace { client: trace.client.clone(), server: trace.server.clone(), events: Vec::new() };
    for (from_client, bytes) in turns {
        let side = if from_client { Side::Client } else { Side::Server };
        let all = if from_client { &mut sent.client } else { &mut sent.server };
        all.extend_from_slice(&bytes);
        trace.feed(&mut session, side, &bytes);
    }
    trace.end(&mut session as &mut dyn Session);
    prop_assert_eq!(trace.client, sent.client);
    prop_assert_eq!(trace.server, sent.server);
    Ok(())
}
