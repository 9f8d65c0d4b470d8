//! Rules on links to a real PostgreSQL, driven by sqlx.

use std::time::{Duration, Instant};

use nogo_faults::{
    Action, BlastRadius, CommitPattern, Fault, FaultState, InstallError, Occurrence, Outcome, Pattern, Place,
    PostgresPattern, ProofError, Protocol, Release, Rule, Target, Tolerance, WireEventKind, WireFault,
};
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgListener};
use tokio::time::timeout;

use crate::{
    private_servers::PrivatePostgres,
    wait::wait_until,
    wire_rig::{LIMIT, WireRig},
};

struct Rig {
    wire: WireRig,
    server: PrivatePostgres,
    /// Past the proxy.
    direct: PgConnection,
}

impl Rig {
    async fn start() -> Self {
        let server = PrivatePostgres::start(20).await;
        let mut direct = server.connect("admin").await.expect("connect");
        direct.execute("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await.expect("create");
        let wire = WireRig::start(server.address(), Protocol::Postgres).await;
        Self { wire, server, direct }
    }

    fn dsn(&self) -> String {
        format!("postgres://admin@{}/postgres", self.wire.listen)
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.dsn()).await.expect("connect through the proxy")
    }

    async fn has(&mut self, id: i64) -> bool {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM t WHERE id = $1)")
            .bind(id)
            .fetch_one(&mut self.direct)
            .await
            .expect("ask past the proxy")
    }
}

/// The commit of a transaction that inserted.
fn commit() -> Pattern {
    Pattern::Postgres(PostgresPattern { statement: Some("INSERT INTO t".into()), commit: Some(CommitPattern::Writing) })
}

fn statement(text: &str) -> Pattern {
    Pattern::Postgres(PostgresPattern { statement: Some(text.into()), commit: None })
}

/// A whole transaction; the error of whichever step fails.
async fn insert(connection: &mut PgConnection, id: i64) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT note FROM t WHERE id = $1").bind(id).fetch_optional(&mut *transaction).await?;
    sqlx::query("INSERT INTO t (id) VALUES ($1)").bind(id).execute(&mut *transaction).await?;
    transaction.commit().await
}

fn is_done(kind: &WireEventKind) -> bool {
    *kind == WireEventKind::Confirmed { outcome: Outcome::Done }
}

/// How the client's transaction ended under a rule; none if it hangs, which a dropped one must.
async fn insert_under(rig: &Rig, name: &str, mut client: PgConnection, id: i64) -> Option<sqlx::Result<()>> {
    let mut inserting = tokio::spawn(async move { insert(&mut client, id).await });
    rig.wire.book.wait_for(name, LIMIT, |record| record.observed == 1).await.expect("bites");
    let ended = timeout(Duration::from_millis(300), &mut inserting).await;
    if rig.wire.record(name).rule.action != Action::Drop {
        let ended = match ended {
            Ok(ended) => ended,
            Err(_) => timeout(LIMIT, inserting).await.expect("is told"),
        };
        return Some(ended.expect("join"));
    }
    inserting.abort();
    ended.ok().map(|ended| ended.expect("join"))
}

fn check_error(action: &Action, outcome: Option<sqlx::Result<()>>) {
    match (action, outcome) {
        (Action::Drop, None) => {}
        (Action::Error { code, .. }, Some(Err(sqlx::Error::Database(error)))) => {
            assert_eq!(error.code().as_deref(), Some(code.as_str()));
        }
        (Action::Cut | Action::Reset, Some(Err(sqlx::Error::Io(error)))) => {
            let is_reset = error.kind() == std::io::ErrorKind::ConnectionReset;
            assert_eq!(is_reset, *action == Action::Reset, "{error:?}");
        }
        other => panic!("{other:?}"),
    }
}

fn losses() -> [Action; 4] {
    let fatal = Action::Error { code: "57P01".into(), text: None, retry_after_s: None };
    [Action::Cut, Action::Reset, Action::Drop, fatal]
}

#[tokio::test]
async fn a_commit_that_never_arrives_leaves_no_row_and_an_error_at_the_client() {
    let mut rig = Rig::start().await;
    for (base, action) in [10, 20, 30, 40].into_iter().zip(losses()) {
        let name = format!("before-{base}");
        rig.wire.rule(&name, commit(), 2, Place::BeforeServer, action.clone());
        let mut client = rig.connect().await;
        insert(&mut client, base + 1).await.expect("the first is not meant");
        check_error(&action, insert_under(&rig, &name, client, base + 2).await);
        insert(&mut rig.connect().await, base + 3).await.expect("the third is not meant");

        assert!(rig.has(base + 1).await && rig.has(base + 3).await);
        assert!(!rig.has(base + 2).await, "{action:?}: the server never heard of it");
        let record = rig.wire.record(&name);
        assert_eq!((record.matched, record.acted, record.observed, record.applied), (3, 1, 1, 0), "{action:?}");
        assert!(record.planned_ns <= record.installed_ns.expect("installed"));
        assert!(record.installed_ns < record.observed_ns);
        rig.wire.book.remove(&name).expect("remove");
    }
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
    assert_eq!(rig.wire.book.without_effect(), Vec::<String>::new());
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_leaves_the_row_and_an_error_at_the_client() {
    let mut rig = Rig::start().await;
    for (base, action) in [10, 20, 30, 40].into_iter().zip(losses()) {
        let name = format!("after-{base}");
        rig.wire.rule(&name, commit(), 2, Place::BeforeClient, action.clone());
        let mut client = rig.connect().await;
        insert(&mut client, base + 1).await.expect("the first is not meant");
        check_error(&action, insert_under(&rig, &name, client, base + 2).await);
        assert!(rig.has(base + 1).await && rig.has(base + 2).await, "{action:?}: it was committed");

        let record = rig.wire.record(&name);
        assert_eq!((record.matched, record.acted, record.observed, record.applied), (2, 1, 1, 1), "{action:?}");
        let story = rig.wire.story(&name);
        let confirmed = story.iter().position(is_done).expect("the server's word was read");
        let observed = story.iter().position(|kind| matches!(kind, WireEventKind::Observed { .. }));
        assert!(Some(confirmed) < observed, "and only then was the answer lost: {story:?}");
        rig.wire.book.remove(&name).expect("remove");
    }
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_late_commit_is_late_on_the_side_that_was_asked_for() {
    const LATE: Duration = Duration::from_millis(1_000);
    let mut rig = Rig::start().await;
    let late = Action::Late { ms: 1_000 };
    rig.wire.rule("late-answer", commit(), 1, Place::BeforeClient, late.clone());
    rig.wire.rule("late-request", commit(), 2, Place::BeforeServer, late);
    for (id, name, applied_early) in [(1, "late-answer", true), (2, "late-request", false)] {
        let mut client = rig.connect().await;
        let started = Instant::now();
        let inserting = tokio::spawn(async move { insert(&mut client, id).await });
        rig.wire.book.wait_for(name, LIMIT, |record| record.acted == 1).await.expect("acts");
        if applied_early {
            wait_until("the row is there before the answer", LIMIT, || rig_has(&rig, id)).await;
            assert!(!inserting.is_finished() || started.elapsed() >= LATE);
        } else {
            let is_there = rig.has(id).await;
            assert!(!is_there || started.elapsed() >= LATE, "the server waits for its COMMIT");
        }
        inserting.await.expect("join").expect("late, but not lost");
        assert!(started.elapsed() >= LATE, "{:?}", started.elapsed());
        assert!(rig.has(id).await);
        let story = rig.wire.story(name);
        let late_ms = story.iter().find_map(|kind| match kind {
            WireEventKind::Observed { late_ms } => *late_ms,
            _ => None,
        });
        assert!(late_ms.is_some_and(|ms| ms >= 1_000), "{story:?}");
        assert_eq!(story.iter().any(is_done), applied_early, "{story:?}");
    }
}

async fn rig_has(rig: &Rig, id: i64) -> Option<()> {
    let mut direct = rig.server.connect("admin").await.ok()?;
    let found = sqlx::query("SELECT FROM t WHERE id = $1").bind(id).fetch_optional(&mut direct).await.ok()?;
    found.map(|_| ())
}

/// How many sessions stand within a transaction that waits for its client.
async fn idle_in_transaction(rig: &Rig) -> i64 {
    let mut direct = rig.server.connect("admin").await.expect("connect");
    let count = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
    direct.fetch_one(count).await.expect("count").get(0)
}

#[tokio::test]
async fn a_half_open_link_is_silent_both_ways_until_it_is_released_or_removed() {
    let mut rig = Rig::start().await;
    rig.wire.rule("half-open", commit(), 1, Place::BeforeServer, Action::Hold { ms: None });
    let mut client = rig.connect().await;
    let inserting = tokio::spawn(async move { insert(&mut client, 1).await });
    rig.wire.book.wait_for("half-open", LIMIT, |record| record.observed == 1).await.expect("bites");
    assert!(!inserting.is_finished());
    inserting.abort();
    // The client is gone, and the server cannot know.
    for _ in 0..5 {
        assert_eq!(idle_in_transaction(&rig).await, 1);
    }
    rig.wire.book.remove("half-open").expect("remove");
    wait_until("the session is gone", LIMIT, || async { (idle_in_transaction(&rig).await == 0).then_some(()) }).await;
    assert!(!rig.has(1).await);

    rig.wire.rule("released", commit(), 1, Place::BeforeServer, Action::Hold { ms: None });
    let mut client = rig.connect().await;
    let inserting = tokio::spawn(async move { insert(&mut client, 2).await });
    rig.wire.book.wait_for("released", LIMIT, |record| record.observed == 1).await.expect("held");
    assert!(!rig.has(2).await);
    rig.wire.book.release("released", Release::Pass).expect("release");
    inserting.await.expect("join").expect("went on");
    assert!(rig.has(2).await);

    // The server has done its work while nobody hears of it; after the time both go on.
    rig.wire.rule("timed", commit(), 1, Place::BeforeClient, Action::Hold { ms: Some(300) });
    let started = Instant::now();
    insert(&mut rig.connect().await, 3).await.expect("went on by itself");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(rig.wire.record("timed").applied, 1);
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
}

#[tokio::test]
async fn statements_are_known_by_text_or_hash_in_every_form_of_the_protocol() {
    let mut rig = Rig::start().await;
    rig.wire.install(Rule {
        name: "seen".into(),
        role: None,
        pattern: statement("insert into T (id, note) values"),
        k: Occurrence::Kth(u64::MAX),
        place: Place::BeforeServer,
        action: Action::Cut,
    });
    let mut client = rig.connect().await;
    for id in 1..=3_i64 {
        // Prepared once, executed three times.
        let prepared = sqlx::query("INSERT INTO t (id, note) VALUES ($1, $2)").bind(id).bind("x");
        prepared.execute(&mut client).await.expect("insert");
    }
    client.execute("INSERT INTO t (id, note) VALUES (4, 'it''s'), (5, NULL)").await.expect("insert");
    client.execute("SELECT count(*) FROM t").await.expect("count");
    let record = rig.wire.record("seen");
    assert_eq!((record.matched, record.acted), (4, 0), "a row count or a literal is no other statement");
    assert_eq!(rig.wire.book.without_effect(), ["seen"], "a rule without effect is seen");

    // A statement outside a transaction commits itself; its answer is lost after that.
    rig.wire.rule("implicit", commit(), 1, Place::BeforeClient, Action::Cut);
    let inserting = sqlx::query("INSERT INTO t (id, note) VALUES ($1, $2) RETURNING id").bind(6_i64).bind("x");
    inserting.fetch_one(&mut client).await.expect_err("the answer is lost");
    assert!(rig.has(6).await);
    assert_eq!(rig.wire.record("implicit").applied, 1);

    // The statement alone, within a transaction: the connection goes, and the transaction with it.
    rig.wire.rule("update", statement("UPDATE t SET note"), 1, Place::BeforeClient, Action::Cut);
    let mut client = rig.connect().await;
    let mut transaction = client.begin().await.expect("begin");
    let updating = sqlx::query("UPDATE t SET note = 'y' WHERE id = $1").bind(6_i64).execute(&mut *transaction).await;
    updating.expect_err("the answer is lost");
    drop(transaction);
    assert_eq!(rig.wire.record("update").applied, 1);
    let note: String = rig.direct.fetch_one("SELECT note FROM t WHERE id = 6").await.expect("ask").get(0);
    assert_eq!(note, "x");
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
}

#[tokio::test]
async fn copies_large_answers_and_notifications_pass_through() {
    let mut rig = Rig::start().await;
    rig.wire.book.set_listing(true);
    let mut listener = PgListener::connect(&rig.dsn()).await.expect("connect");
    listener.listen("news").await.expect("listen");
    rig.direct.execute("NOTIFY news, 'now'").await.expect("notify");
    let heard = timeout(LIMIT, listener.recv()).await.expect("in time").expect("a notification");
    assert_eq!(heard.payload(), "now");
    let mut client = rig.connect().await;
    let mut copy = client.copy_in_raw("COPY t (id, note) FROM STDIN").await.expect("copy in");
    let line = "x".repeat(1_000);
    let rows: String = (1..=8_000).map(|id| format!("{id}\t{line}\n")).collect();
    copy.send(rows.as_bytes()).await.expect("send");
    assert_eq!(copy.finish().await.expect("finish"), 8_000);
    let back = client.fetch_all("SELECT id, note FROM t ORDER BY id").await.expect("read");
    assert_eq!(back.len(), 8_000);
    assert_eq!(back[7_999].get::<&str, _>("note"), line);

    rig.wire.rule("copy", statement("COPY t"), 1, Place::BeforeClient, Action::Cut);
    let mut copy = client.copy_in_raw("COPY t (id) FROM STDIN").await.expect("the start passes");
    copy.send(&b"9000\n"[..]).await.expect("send");
    copy.finish().await.expect_err("the answer is lost");
    assert!(rig.has(9_000).await);
    let (points, _) = rig.wire.book.points();
    assert_eq!(points.len(), 2, "{points:?}");
    assert_eq!(rig.wire.untracked(), Vec::<String>::new());
}

#[tokio::test]
async fn every_commit_of_a_story_is_listed_and_can_be_hit_alone() {
    let mut rig = Rig::start().await;
    async fn story(client: &mut PgConnection, base: i64) -> sqlx::Result<()> {
        insert(client, base).await?;
        insert(client, base + 1).await?;
        sqlx::query("UPDATE t SET note = $1 WHERE id = $2").bind("n").bind(base).execute(&mut *client).await?;
        let mut transaction = client.begin().await?;
        sqlx::query("DELETE FROM t WHERE id = $1").bind(base + 1).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO t (id) VALUES ($1)").bind(base + 2).execute(&mut *transaction).await?;
        transaction.commit().await?;
        let mut reading = client.begin().await?;
        sqlx::query("SELECT 1").execute(&mut *reading).await?;
        reading.commit().await
    }
    rig.wire.book.set_listing(true);
    story(&mut rig.connect().await, 100).await.expect("undisturbed");
    rig.wire.book.set_listing(false);
    let (points, lost) = rig.wire.book.points();
    assert_eq!(lost, 0);
    let seen: Vec<(u64, &str)> = points.iter().map(|point| (point.k, point.operation.as_str())).collect();
    assert_eq!(points.len(), 4, "a commit that wrote nothing is no point: {seen:?}");
    assert_eq!(points.iter().map(|point| point.k).collect::<Vec<_>>(), [1, 2, 1, 1], "{seen:?}");
    assert!(points.iter().all(|point| point.outcome == Some(Outcome::Done)), "{points:?}");

    for (number, point) in points.iter().enumerate() {
        for place in [Place::BeforeServer, Place::BeforeClient] {
            let name = format!("point-{number}-{place:?}");
            rig.wire.install(point.rule(&name, place, Action::Cut));
            rig.direct.execute("TRUNCATE t").await.expect("truncate");
            story(&mut rig.connect().await, 100).await.expect_err("the connection is cut");
            let record = rig.wire.record(&name);
            assert_eq!(record.observed, 1, "{name}");
            assert_eq!(record.applied, u64::from(place == Place::BeforeClient), "{name}");
            let count: i64 = rig.direct.fetch_one("SELECT count(*) FROM t").await.expect("count").get(0);
            let expected = match (number, place) {
                (0, Place::BeforeServer) => 0,
                (0, Place::BeforeClient) | (1, Place::BeforeServer) => 1,
                _ => 2,
            };
            assert_eq!(count, expected, "{name}");
            rig.wire.book.remove(&name).expect("remove");
        }
    }
}

#[tokio::test]
async fn a_rule_is_a_fault_that_bites_heals_and_stays_within_its_radius() {
    let mut rig = Rig::start().await;
    let rule = Rule {
        name: "black-hole".into(),
        role: Some("worker".into()),
        pattern: commit(),
        k: Occurrence::EVERY,
        place: Place::BeforeServer,
        action: Action::Hold { ms: None },
    };
    let targets = vec![Target::Proxy { api: rig.wire.api, name: "link".into() }];
    let tolerance = Tolerance { goodput_ratio_min: 0.5, outage_ms_max: 3_000, recover_ms_max: 5_000 };
    let mut fault =
        WireFault::new("half-open", rig.wire.book.clone(), vec![rule], targets, tolerance, 5_000).expect("plan");
    assert!(matches!(fault.control_proof().await, Err(ProofError::NoHarm(_))));
    let mut radius = BlastRadius::new(LIMIT);
    radius.grant(&fault, LIMIT).expect_err("nothing is allowed yet");
    radius.allow_address(rig.wire.api);
    let grant = radius.grant(&fault, LIMIT).expect("inside");

    let proof = fault.install(&grant).await.expect("install");
    assert_eq!((proof.kind.as_str(), &proof.detail["observed"]), ("rule_live", &serde_json::json!(0)));
    assert_eq!(rig.wire.record("black-hole").state(), FaultState::Installed);
    let mut victim = rig.connect().await;
    let waiting = tokio::spawn(async move { insert(&mut victim, 1).await });
    rig.wire.book.wait_for("black-hole", LIMIT, |record| record.observed == 1).await.expect("bites");
    assert!(!waiting.is_finished());
    assert_eq!(rig.wire.record("black-hole").state(), FaultState::Observed);
    sqlx::query("SELECT 1").execute(&mut rig.connect().await).await.expect("what does not match goes on");
    fault.control_proof().await.expect("still there");

    let healed = fault.heal().await.expect("heal");
    assert_eq!((healed.kind.as_str(), &healed.detail["observed"]), ("rule_removed", &serde_json::json!(1)));
    assert_eq!(rig.wire.book.held("black-hole"), 0);
    waiting.await.expect("join").expect_err("was cut");
    insert(&mut rig.connect().await, 2).await.expect("commits again");
    assert!(rig.has(2).await && !rig.has(1).await);
    assert!(matches!(fault.control_proof().await, Err(ProofError::NoHarm(_))));
    assert_eq!(fault.heal().await.expect("heal is idempotent").detail, healed.detail);
    assert!(matches!(fault.install(&grant).await, Err(InstallError::Used { .. })));
}
