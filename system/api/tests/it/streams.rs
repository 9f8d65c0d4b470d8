//! Watching forecasts: nothing missed, nothing twice, nothing to whom it does not concern.

use std::time::{Duration, Instant};

use forecastle_api::ApiConfig;
use forecastle_store::jobs::{self, Claim, ClaimTerms, KIND_FORECAST, Settled};
use forecastle_store::{Db, DbOptions};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::io::AsyncWriteExt as _;

use crate::fixtures::{Instance, config, text};
use crate::servers::Servers;

const PATIENCE: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(60);
const ABSENT: &str = "00000000-0000-4000-8000-000000000000";

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    event: String,
    id: String,
    data: Value,
}

impl Told {
    fn brief(&self) -> (String, Value) {
        (text(&self.data, "state").to_owned(), self.data["percent"].clone())
    }
}

/// A client of one stream.
pub(crate) struct Reader {
    response: reqwest::Response,
    buffer: String,
}

impl Reader {
    pub(crate) async fn open(api: &Instance, token: &str, query: &str, last: Option<&str>) -> Self {
        let mut request = reqwest::Client::new().get(api.url(&format!("/v1/forecasts/events{query}")));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.bearer_auth(token).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "private, no-store");
        Self { response, buffer: String::new() }
    }

    /// The next message that is no comment; `None` when the stream has ended.
    async fn next(&mut self) -> Option<Told> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                let (event, id, data) = (field("event: "), field("id: "), field("data: "));
                self.buffer = rest.to_owned();
                if let (Some(event), Some(data)) = (event, data) {
                    let data = serde_json::from_str(&data).expect("JSON");
                    return Some(Told { event, id: id.unwrap_or_default(), data });
                }
                continue;
            }
            let left = end.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.response.chunk()).await.expect("a message in time") {
                Ok(Some(bytes)) => self.buffer.push_str(std::str::from_utf8(&bytes).expect("UTF-8")),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The pause in ms that the message named `ready` asks for; what comes before it is skipped.
    async fn pause_before_coming_back(&mut self) -> u64 {
        loop {
            let mut blocks = self.buffer.split_inclusive("\n\n").filter(|block| block.ends_with("\n\n"));
            if let Some(ready) = blocks.find(|block| block.contains("event: ready")) {
                let pause = ready.lines().find_map(|line| line.strip_prefix("retry: "));
                return pause.and_then(|ms| ms.trim().parse().ok()).expect("a pause in ms");
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("a message in time");
            let bytes = chunk.expect("a stream that goes on").expect("a message");
            self.buffer.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        }
    }

    pub(crate) async fn told(&mut self, event: &str) -> Told {
        let told = self.next().await.expect("a message");
        assert_eq!(told.event, event, "{told:?}");
        told
    }

    async fn ends(mut self) -> Duration {
        let started = Instant::now();
        while self.next().await.is_some() {}
        started.elapsed()
    }
}

struct Bed {
    api: Instance,
    db: Db,
    admin: sqlx::PgConnection,
    servers: Servers,
}

async fn bed(change: impl FnOnce(&mut ApiConfig)) -> Bed {
    let servers = Servers::start().await;
    let mut config = config(&servers);
    config.streams.poll = Duration::from_millis(200);
    change(&mut config);
    let api = Instance::start(config).await;
    let db = Db::open(DbOptions::new(servers.database_url("forecastle_app"), "streams-test")).unwrap();
    let admin = sqlx::PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    Bed { api, db, admin, servers }
}

impl Bed {
    async fn customer(&self, name: &str) -> (String, Value) {
        let session = self.api.sign_up(name, "PRO").await;
        let token = text(&session, "access_token").to_owned();
        let scenario = self.api.scenario(&token, "s").await;
        (token, scenario)
    }

    async fn ask(&self, customer: &(String, Value), key: &str) -> String {
        let body = json!({"scenario_id": customer.1["id"]});
        let answer = self.api.post_with_key("/v1/forecasts", &customer.0, key, body).await.expect(202);
        text(&answer.json(), "id").to_owned()
    }

    async fn cancel(&self, token: &str, id: &str) {
        let path = format!("/v1/forecasts/{id}/cancel");
        self.api.send(Method::POST, &path, Some(token), &[], None).await.expect(200);
    }

    async fn claim(&self) -> Claim {
        let terms = ClaimTerms { lease: LONG, deadline: LONG };
        jobs::claim(&self.db, "w", 1, terms, &[KIND_FORECAST]).await.unwrap().jobs.remove(0).claim
    }

    async fn count(&mut self, statement: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(&mut self.admin).await.unwrap()
    }

    /// The server's side of the one link that listens, once a stream has made it.
    async fn listening_pid(&mut self) -> i64 {
        let end = Instant::now() + PATIENCE;
        while self.count("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").await == 0 {
            assert!(Instant::now() < end, "nobody listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.count("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").await, 1);
        self.count("SELECT pid::bigint FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").await
    }
}

#[tokio::test]
async fn a_stream_tells_a_forecasts_life_and_goes_on_where_it_was_left() {
    let bed = bed(|_| {}).await;
    let ada = bed.customer("ada").await;
    let mut reader = Reader::open(&bed.api, &ada.0, "", None).await;
    let ready = reader.told("ready").await;
    let id = bed.ask(&ada, "f").await;
    let claim = bed.claim().await;
    assert_eq!(jobs::heartbeat(&bed.db, &claim, LONG, Some(40)).await, Ok(Settled::Done));
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(reader.told("forecast").await);
    }
    drop(reader);
    bed.cancel(&ada.0, &id).await;
    let all = [
        ("queued".to_owned(), Value::Null),
        ("running".to_owned(), json!(0)),
        ("running".to_owned(), json!(40)),
        ("cancelled".to_owned(), Value::Null),
    ];
    assert_eq!(told.iter().map(Told::brief).collect::<Vec<_>>(), all[..3]);
    assert!(told.iter().all(|told| text(&told.data, "forecast_id") == id));

    let mut again = Reader::open(&bed.api, &ada.0, "", Some(&told[2].id)).await;
    assert_eq!(again.told("forecast").await.brief(), all[3]);
    let place = again.told("ready").await.id;
    let mut once_more = Reader::open(&bed.api, &ada.0, "", Some(&place)).await;
    once_more.told("ready").await;
    let mut from_the_start = Reader::open(&bed.api, &ada.0, "", Some(&ready.id)).await;
    for expected in &all {
        assert_eq!(from_the_start.told("forecast").await.brief(), *expected);
    }
    from_the_start.told("ready").await;
}

#[tokio::test]
async fn one_forecast_is_watched_from_its_present_state_and_nobody_elses_ever() {
    let bed = bed(|_| {}).await;
    let (ada, eve) = (bed.customer("ada").await, bed.customer("eve").await);
    let mine = bed.ask(&ada, "f1").await;
    let other = bed.ask(&ada, "f2").await;
    for nobodys in [ABSENT, "x"] {
        let foreign = bed.api.get(&format!("/v1/forecasts/events?forecast_id={mine}"), &eve.0).await.expect(404);
        let absent = bed.api.get(&format!("/v1/forecasts/events?forecast_id={nobodys}"), &eve.0).await;
        assert_eq!((absent.status, &absent.text), (foreign.status, &foreign.text));
    }
    let mut hers = Reader::open(&bed.api, &eve.0, "", None).await;
    hers.told("ready").await;
    let mut reader = Reader::open(&bed.api, &ada.0, &format!("?forecast_id={mine}"), None).await;
    assert_eq!(reader.told("forecast").await.brief(), ("queued".to_owned(), Value::Null));
    reader.told("ready").await;
    bed.cancel(&ada.0, &other).await;
    bed.cancel(&ada.0, &mine).await;
    let told = reader.told("forecast").await;
    assert_eq!((text(&told.data, "forecast_id"), told.brief().0.as_str()), (mine.as_str(), "cancelled"));
    let own = bed.ask(&eve, "e").await;
    assert_eq!(text(&hers.told("forecast").await.data, "forecast_id"), own, "nothing of another's came before");
}

#[tokio::test]
async fn a_place_that_is_none_is_refused_and_one_too_old_is_told_so() {
    let bed = bed(|config| config.streams.events_kept = Duration::from_millis(1)).await;
    let ada = bed.customer("ada").await;
    for place in ["x", "1-2", "1-2-3-4", "-1-1-1"] {
        let headers = [("last-event-id", place)];
        let refused = bed.api.send(Method::GET, "/v1/forecasts/events", Some(&ada.0), &headers, None).await;
        assert_eq!(refused.code(), (400, "last_event_id_invalid".to_owned()), "{place}");
    }
    let mut reader = Reader::open(&bed.api, &ada.0, "", Some("3-1-1000")).await;
    reader.told("reset").await;
    reader.told("ready").await;
}

#[tokio::test]
async fn a_revoked_sessions_stream_ends_within_a_second_and_others_go_on() {
    let bed = bed(|_| {}).await;
    let ada = bed.customer("ada").await;
    let other = bed.api.log_in("ada").await;
    let mut stays = Reader::open(&bed.api, text(&other, "access_token"), "", None).await;
    stays.told("ready").await;
    let mut goes = Reader::open(&bed.api, &ada.0, "", None).await;
    goes.told("ready").await;
    bed.api.send(Method::POST, "/v1/logout", Some(&ada.0), &[], None).await.expect(204);
    let lasted = goes.ends().await;
    assert!(lasted < Duration::from_secs(1), "{lasted:?}");
    let id = bed.ask(&(text(&other, "access_token").to_owned(), ada.1.clone()), "f").await;
    assert_eq!(text(&stays.told("forecast").await.data, "forecast_id"), id);
    drop(bed.servers);
}

#[tokio::test]
async fn streams_are_counted_and_share_one_listening_connection() {
    let mut bed = bed(|config| {
        config.streams.of_user_max = 2;
        config.streams.max = 3;
    })
    .await;
    let (ada, eve, bob) = (bed.customer("ada").await, bed.customer("eve").await, bed.customer("bob").await);
    let mut open = Vec::new();
    for token in [&ada.0, &ada.0, &eve.0] {
        let mut reader = Reader::open(&bed.api, token, "", None).await;
        reader.told("ready").await;
        open.push(reader);
    }
    let refused = bed.api.get("/v1/forecasts/events", &ada.0).await;
    assert_eq!(refused.code(), (429, "too_many_streams".to_owned()));
    assert_ne!(refused.header("retry-after"), "");
    assert_eq!(bed.api.get("/v1/forecasts/events", &bob.0).await.code(), (503, "unavailable".to_owned()));
    bed.listening_pid().await;
    drop(open.remove(0));
    let end = Instant::now() + PATIENCE;
    while bed.api.status(Method::GET, "/v1/forecasts/events", &bob.0).await.0 != 200 {
        assert!(Instant::now() < end, "a closed stream's place was not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_frozen_listening_link_costs_time_and_nothing_else() {
    let mut bed = bed(|config| config.streams.listen_keep_alive = Duration::from_secs(60)).await;
    let ada = bed.customer("ada").await;
    let mut reader = Reader::open(&bed.api, &ada.0, "", None).await;
    reader.told("ready").await;
    let pid = bed.listening_pid().await.to_string();
    let signal = |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    let id = bed.ask(&ada, "f").await;
    let told = reader.told("forecast").await;
    assert_eq!(text(&told.data, "forecast_id"), id);
    signal("-CONT");
}

#[tokio::test]
async fn a_drain_ends_the_streams_and_does_not_wait_for_their_readers() {
    let bed = bed(|_| {}).await;
    let ada = bed.customer("ada").await;
    let mut reader = Reader::open(&bed.api, &ada.0, "", None).await;
    reader.told("ready").await;
    let (drained, lasted) = tokio::join!(tokio::time::timeout(PATIENCE, bed.api.drain()), reader.ends());
    drained.expect("drained in time").expect("drained well");
    assert!(lasted < Duration::from_secs(5), "{lasted:?}");
}

#[tokio::test]
async fn a_stream_ends_with_the_life_of_the_token_that_opened_it() {
    let bed = bed(|config| config.access_ttl = Duration::from_secs(2)).await;
    let ada = bed.customer("ada").await;
    let mut reader = Reader::open(&bed.api, &ada.0, "", None).await;
    reader.told("ready").await;
    let lasted = reader.ends().await;
    assert!(lasted < Duration::from_secs(3), "{lasted:?}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off() {
    let mut bed = bed(|config| {
        config.streams.of_user_max = 1;
        config.streams.stall = Duration::from_millis(300);
    })
    .await;
    let ada = bed.customer("ada").await;
    let id = bed.ask(&ada, "f").await;
    let address = bed.api.url("").trim_start_matches("http://").parse().expect("address");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut lazy = socket.connect(address).await.unwrap();
    let request = format!("GET /v1/forecasts/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", ada.0);
    lazy.write_all(request.as_bytes()).await.unwrap();
    let end = Instant::now() + PATIENCE;
    while bed.api.status(Method::GET, "/v1/forecasts/events", &ada.0).await.0 != 429 {
        assert!(Instant::now() < end, "the stream did not begin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // More than the buffers between the two can hold.
    let flood = format!(
        "WITH told AS (
             INSERT INTO app.forecast_events (tenant_id, forecast_id, state, error_code)
             SELECT tenant_id, forecast_id, 'running', repeat('x', 400)
             FROM app.forecasts, generate_series(1, 20000) WHERE forecast_id = '{id}' RETURNING tenant_id)
         SELECT count(pg_notify('forecastle_events', tenant_id::text)) FROM told"
    );
    assert_eq!(bed.count(&flood).await, 20_000);
    let end = Instant::now() + PATIENCE;
    while bed.api.status(Method::GET, "/v1/forecasts/events", &ada.0).await.0 != 200 {
        assert!(Instant::now() < end, "the lazy reader still has its place");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(lazy);
}

#[tokio::test]
async fn readers_whose_streams_end_together_are_asked_to_come_back_one_after_the_other() {
    let bed = bed(|_| {}).await;
    let ada = bed.customer("ada").await;
    let mut pauses = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let mut reader = Reader::open(&bed.api, &ada.0, "", None).await;
        pauses.insert(reader.pause_before_coming_back().await);
    }
    assert!(pauses.iter().all(|ms| (1_000..=3_000).contains(ms)), "{pauses:?}");
    assert!(pauses.len() >= 4, "{pauses:?}");
}

#[tokio::test]
async fn without_redis_a_session_is_looked_up_once_for_all_of_its_streams() {
    let mut bed = bed(|_| {}).await;
    let ada = bed.customer("ada").await;
    let mut readers = Vec::new();
    for _ in 0..8 {
        let mut reader = Reader::open(&bed.api, &ada.0, "", None).await;
        reader.told("ready").await;
        readers.push(reader);
    }
    bed.servers.stop_redis();
    let looks = async || {
        let page = bed.api.send(Method::GET, "/metrics", None, &[], None).await.text;
        let lookups = page.lines().filter(|line| line.starts_with("forecastle_cache_lookups_total"));
        let of_sessions = lookups.filter(|line| line.contains("class=\"session\""));
        of_sessions.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let (begun, before) = (Instant::now(), looks().await);
    while looks().await < before + 12.0 {
        assert!(begun.elapsed() < PATIENCE, "nobody looks after the session");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // One look in 200 to 400 ms; eight streams that each look for themselves have done so in two rounds.
    assert!(begun.elapsed() > Duration::from_millis(1_600), "{:?}", begun.elapsed());
    let session = "UPDATE app.sessions SET revoked_at = now()";
    sqlx::query(session).execute(&mut bed.admin).await.unwrap();
    for reader in readers {
        assert!(reader.ends().await < Duration::from_secs(2), "the end is each stream's");
    }
}
