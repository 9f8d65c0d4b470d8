//! `forecastle bill` as a process: killed anywhere, run again, two at a time.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forecastle_testbed::provider::{self, Book};
use forecastle_testbed::{Postgres, books, customers};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

const BINARY: &str = env!("CARGO_BIN_EXE_forecastle");
const AS_OF: &str = "2026-02-16T00:00:00Z";
/// Connections beyond one for each tenant at work, as the command's help says.
const CONNECTIONS_MAX: i64 = 4 + 2;
/// Longest wait for a process to get as far as it should be killed, or to end.
const LIMIT: Duration = Duration::from_secs(60);

struct Bed {
    admin: PgConnection,
    book: Arc<Book>,
    provider_url: String,
    postgres: Postgres,
}

async fn bed() -> Bed {
    let postgres = Postgres::start();
    let migrated = Command::new(BINARY)
        .args(["migrate", "--database-url", &postgres.admin_url()])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(migrated.success());
    let mut admin = customers::connect(&postgres.admin_url()).await;
    for currency in ["USD", "EUR", "GBP", "JPY", "KWD"] {
        for (plan, used) in [("FREE", 4), ("STARTER", 111), ("PRO", 7)] {
            let customer = customers::sign_up(&mut admin, plan, currency, "2026-01-01 00:00+00").await;
            customers::use_forecasts(&mut admin, &customer, used, "2026-01-20 00:00+00").await;
        }
    }
    // Each by a name of its own; two whose cards never pay.
    let named = "UPDATE app.tenants SET organization = plan || ' ' || currency;
                 UPDATE app.tenants SET payment_token = 'tok_declined' WHERE organization IN ('PRO GBP', 'STARTER KWD')";
    admin.execute(sqlx::raw_sql(AssertSqlSafe(named.to_owned()))).await.unwrap();
    let (provider_url, book) = provider::start().await;
    Bed { admin, book, provider_url, postgres }
}

impl Bed {
    fn start(&self) -> Child {
        Command::new(BINARY)
            .args(["bill", "--as-of", AS_OF, "--parallel", "4", "--provider-timeout-ms", "500"])
            .args(["--database-url", &self.postgres.url_of("forecastle_app"), "--provider-url", &self.provider_url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Waits for the end of a run; its exit code.
    async fn finish(&self, mut child: Child) -> Option<i32> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "the run did not end within {LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How far the books are: everything that a run writes only adds to this.
    async fn progress(&mut self) -> i64 {
        let written = "SELECT (SELECT count(*) FROM app.invoices) + (SELECT count(*) FROM app.period_closings)
            + (SELECT count(*) FROM app.payments) + (SELECT count(*) FROM app.ledger_entries)";
        customers::count(&mut self.admin, written).await + i64::from(self.book.posts())
    }

    async fn connections(&mut self) -> i64 {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'biller'";
        customers::count(&mut self.admin, open).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_and_run_again_it_ends_in_the_books_of_an_undisturbed_run() {
    let mut calm = bed().await;
    assert_eq!(calm.finish(calm.start()).await, Some(0));
    let expected = books::read(&mut calm.admin).await;
    assert!(expected.iter().any(|line| line.contains("|uncollectible|")), "{expected:?}");

    let mut bed = bed().await;
    // Slow answers, so that kills find charges under way; and some that are lost after their effect.
    bed.book.answer_ms.store(15, Ordering::SeqCst);
    bed.book.answers_to_lose.store(5, Ordering::SeqCst);
    let (mut kills, mut connections_max) = (0, 0);
    for points in (1..=3).cycle().take(36) {
        let before = bed.progress().await;
        let mut child = bed.start();
        let end = Instant::now() + LIMIT;
        // Each process gets a little further than the one before it, by one to three of what it writes or asks.
        while child.try_wait().unwrap().is_none() && bed.progress().await < before + points {
            connections_max = connections_max.max(bed.connections().await);
            assert!(Instant::now() < end, "no progress within {LIMIT:?}");
        }
        let ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if ended {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 10, "only {kills} processes were killed");
    assert!(connections_max <= CONNECTIONS_MAX, "{connections_max} connections");
    let (a, b) = (bed.start(), bed.start());
    assert_eq!((bed.finish(a).await, bed.finish(b).await), (Some(0), Some(0)));
    assert_eq!(books::read(&mut bed.admin).await, expected);
    books::assert_square(&mut bed.admin, &bed.book).await;
    println!("{kills} kills, at most {connections_max} connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_at_once_of_which_one_is_killed_make_one_set_of_books() {
    let mut bed = bed().await;
    bed.book.answer_ms.store(10, Ordering::SeqCst);
    bed.book.answers_to_withhold.store(2, Ordering::SeqCst);
    let (mut killed, other) = (bed.start(), bed.start());
    let end = Instant::now() + LIMIT;
    while bed.book.posts() < 4 {
        assert!(Instant::now() < end, "no charge within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(bed.finish(other).await, Some(0));
    let books = books::read(&mut bed.admin).await;
    assert_eq!(bed.finish(bed.start()).await, Some(0));
    assert_eq!(books::read(&mut bed.admin).await, books);
    books::assert_square(&mut bed.admin, &bed.book).await;
}
