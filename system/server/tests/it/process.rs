//! Processes of the real binary on a PostgreSQL and a Redis of the test's own.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_testbed::{Postgres, Redis};
use serde_json::{Value, json};
use tempfile::TempDir;

/// 32 bytes in base64url: a key for whatever wants one.
pub(crate) const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
pub(crate) const PASSWORD: &str = "correct horse battery";
/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(40);

/// The servers that every process needs.
pub(crate) struct Ground {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    folder: TempDir,
}

impl Ground {
    pub(crate) async fn start() -> Self {
        let postgres = Postgres::start();
        migrate(&postgres.admin_url(), &RolePasswords::default()).await.expect("migrate");
        Self { postgres, redis: Redis::start(), folder: tempfile::tempdir().expect("make scratch folder") }
    }

    fn command(&self, name: &str, subcommand: &str, arguments: &[&str]) -> (Command, PathBuf) {
        let errors = self.folder.path().join(format!("{name}-{}.stderr", uuid::Uuid::new_v4().simple()));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(env!("CARGO_BIN_EXE_forecastle")).arg(subcommand);
        command.args(["--instance", name]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(&errors).expect("make a file for stderr"));
        (command, errors)
    }

    /// A process that works on the database, announced in one line on stdout.
    pub(crate) fn run(&self, name: &str, subcommand: &str, arguments: &[&str]) -> Process {
        let database_url = self.postgres.url_of("forecastle_app");
        let mut all = vec!["--database-url", database_url.as_str()];
        all.extend(arguments);
        self.run_without_database(name, subcommand, &all)
    }

    /// A process that announces itself in one line on stdout.
    pub(crate) fn run_without_database(&self, name: &str, subcommand: &str, arguments: &[&str]) -> Process {
        let (command, errors) = self.command(name, subcommand, arguments);
        Self::spawn(name, command, errors)
    }

    fn spawn(name: &str, mut command: Command, errors: PathBuf) -> Process {
        let mut child = command.spawn().expect("start forecastle");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("read its first line");
        let announced = serde_json::from_str(&line).unwrap_or_else(|_| {
            let told = std::fs::read_to_string(&errors).unwrap_or_default();
            panic!("{name} did not start: {line}{told}")
        });
        Process { child, errors, announced }
    }

    /// An instance of the interface, with generous limits and cheap hashes.
    pub(crate) fn serve(&self, name: &str, arguments: &[&str]) -> Process {
        let arguments = self.serve_arguments(arguments);
        self.run_without_database(name, "serve", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same with a pipe as its stderr, which nobody reads as long as the pipe's other end is only kept.
    pub(crate) fn serve_unread(&self, name: &str, arguments: &[&str]) -> (Process, std::io::PipeReader) {
        let arguments = self.serve_arguments(arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (mut command, errors) = self.command(name, "serve", &arguments);
        let (unread, stderr) = std::io::pipe().expect("make a pipe");
        command.stderr(stderr);
        (Self::spawn(name, command, errors), unread)
    }

    fn serve_arguments(&self, arguments: &[&str]) -> Vec<String> {
        let database_url = self.postgres.url_of("forecastle_app");
        let redis_url = self.redis.url();
        let signing = format!("test:{KEY}");
        let mut all = vec!["--database-url", &database_url, "--redis-url", &redis_url, "--signing-keys", &signing];
        all.extend(["--password-memory-kib", "64", "--password-passes", "1"]);
        for limit in ["user", "address", "login", "user-floor", "address-floor", "login-floor"] {
            all.push(match limit {
                "user" => "--rate-user-per-s",
                "address" => "--rate-address-per-s",
                "login" => "--rate-login-per-s",
                "user-floor" => "--rate-user-floor-per-s",
                "address-floor" => "--rate-address-floor-per-s",
                _ => "--rate-login-floor-per-s",
            });
            all.push("100000");
        }
        all.extend(arguments);
        all.into_iter().map(str::to_owned).collect()
    }
}

/// Killed when dropped.
pub(crate) struct Process {
    child: Child,
    errors: PathBuf,
    pub(crate) announced: Value,
}

impl Process {
    /// `http://` and the address it listens on, of the interface or of its metrics.
    pub(crate) fn base(&self) -> String {
        let address = self.announced["address"].as_str().or(self.announced["metrics"].as_str()).expect("an address");
        format!("http://{address}")
    }

    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.errors).expect("read its stderr")
    }

    /// Memory that it holds now, KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("read its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("run kill").success());
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let given_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("look at the process") {
                return status;
            }
            assert!(Instant::now() < given_up, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a free port");
    listener.local_addr().expect("read the port").port()
}

/// Polls until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let given_up = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < given_up, "did not happen within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn sign_up_body(name: &str, plan: &str) -> Value {
    json!({
        "organization": format!("{name} Ltd"), "name": name, "email": format!("{name}@example.com"),
        "password": PASSWORD, "plan": plan, "currency": "EUR", "time_zone": "Europe/Berlin",
        "payment_token": "tok_good",
    })
}

/// Signs up and gives the session.
pub(crate) async fn sign_up(client: &reqwest::Client, base: &str, name: &str) -> Value {
    let answer =
        client.post(format!("{base}/v1/signup")).json(&sign_up_body(name, "PRO")).send().await.expect("answer");
    assert_eq!(answer.status().as_u16(), 201);
    answer.json().await.expect("a session")
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}"))
}

/// The sum of a metric's samples whose line holds `label`; 0 if there is none.
pub(crate) fn metric(exposition: &str, name: &str, label: &str) -> f64 {
    exposition
        .lines()
        .filter(|line| line.starts_with(name) && !line[name.len()..].starts_with('_') && line.contains(label))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

pub(crate) async fn metrics_of(base: &str) -> String {
    reqwest::get(format!("{base}/metrics")).await.expect("metrics").text().await.expect("text")
}

pub(crate) fn scenario(name: &str) -> Value {
    json!({
        "name": name, "notes": "n",
        "input": {
            "currency": "EUR", "start_month": "2026-01", "horizon_months": 3, "opening_cash": "1000",
            "discount_rate_annual": "0.05", "tax_rate": "0.2",
            "revenue": [{
                "name": "Plan", "opening_units": "10", "adds_per_month": "1", "adds_growth_monthly": "0",
                "churn_monthly": "0", "price": "9.99", "price_growth_annual": "0", "collection_lag_months": 0,
            }],
            "costs": [],
        },
    })
}
