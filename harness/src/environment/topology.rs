//! The whole system of one run: servers, links, APIs and workers, started in order and stopped.
//!
//! Processes are named `api-1`, `worker-1`, `biller-1`; each reaches each server by a link of its
//! own, and APIs and workers the sinks too. The harness's own readers and faults connect past the links.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::{join_all, try_join_all};
use nogo_faults::{CLOCK_IS_RIGHT, RuleBook, catalogue};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::Instant;

use super::clock_library::clock_environment;
use super::engine::{Engine, PostgresSpec, RedisSpec};
use super::free_port::free_port;
use super::links::Links;
use super::replication::wait_until_streaming;
use super::servers::{PostgresServer, RedisServer, dsn, random_password};
use super::service_control::{PostgresControl, RedisControl};
use super::signing_key::SigningKey;
use super::supervisor::{OneShot, ProcessSpec, Supervisor};
use super::system_process::SystemProcess;
use super::writing_functions::writing_functions;
use crate::exit_code::EndsWith;
use crate::provider::WebhookSecret;
use crate::sinks::{Drill, Language, Sink};

/// Name of PostgreSQL in links.
pub const POSTGRES: &str = "postgres";
/// Names of its streaming replicas, in links, to the primary and to the system.
pub const REPLICAS: [&str; 2] = ["replica-1", "replica-2"];
/// Name of the payment provider in links.
pub const PROVIDER: &str = "provider";
/// Name of the sink of error reports in links.
pub const ERRORS: &str = "errors";
/// Name of the sink of product analytics in links.
pub const ANALYTICS: &str = "analytics";
/// Name of the webhook that alerts are posted to in links.
pub const ALERTS: &str = "alerts";
/// Name of the process that watches the others.
pub const ALERTER: &str = "alert-1";
/// Names of the billers, which run on demand, also both at once.
pub const BILLERS: [&str; 2] = ["biller-1", "biller-2"];
/// The system's database.
pub const DATABASE: &str = "forecastle";
const APP_ROLE: &str = "forecastle_app";
const READ_ROLE: &str = "forecastle_read";

/// Connections for checkers, faults, probes and the superuser's reserve.
const RESERVED_CONNECTIONS: u32 = 40;
/// Time for both replicas to be streaming, once they answer.
const STREAMING_LIMIT: Duration = Duration::from_secs(30);
/// Connections of one API beyond those it was given: where it has replicas it asks the primary how far its log reaches.
const POSITION_CONNECTIONS: u32 = 1;
/// Time for a process to say its first line, on a loaded machine.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Time for the migrations.
const MIGRATE_LIMIT: Duration = Duration::from_secs(120);
/// Time for a process to drain after SIGTERM.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// The project that errors are reported under.
const ERROR_PROJECT: u32 = 1;
/// Between two looks of the alert process, milliseconds: a drill of a window is seen early in it.
const WATCH_EVERY_MS: &str = "1000";
/// Its patience with its webhook, milliseconds: several tries fit into a window.
const WEBHOOK_TIMEOUT_MS: &str = "1000";
/// How long an event of analytics waits for others, milliseconds: so that each API tells some several times a second.
const ANALYTICS_LINGER_MS: &str = "250";
/// Pause between two questions at `/readyz`.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// How many of what, and how each is set.
#[derive(Debug, Clone)]
pub struct TopologySpec {
    /// The run's copy of the system's binary.
    pub binary: PathBuf,
    /// Seed of the proxy server's draws.
    pub seed: u64,
    /// Number of API processes.
    pub apis: u32,
    /// Number of worker processes.
    pub workers: u32,
    /// Jobs that a worker runs at once.
    pub worker_concurrency: u32,
    /// Connections that one process may hold; `max_connections` follows from it.
    pub pool_max: u32,
    /// Size of the volume for the primary's data, MiB; none is the host's disk.
    pub postgres_data_mib: Option<u32>,
    /// The library that lets a fault set the clocks of APIs and workers; none leaves them alone.
    pub clock_library: Option<PathBuf>,
    /// Rules that are asked for every request on every link; none leaves connections unfollowed.
    pub rule_book: Option<RuleBook>,
    /// What the provider signs its events with; none where it sends none.
    pub webhook_secret: Option<WebhookSecret>,
    /// Where the payment provider's double listens.
    pub provider: SocketAddr,
    /// Further flags of `serve`.
    pub api_arguments: Vec<String>,
    /// Further flags of `work`.
    pub worker_arguments: Vec<String>,
    /// Further flags of `bill`.
    pub biller_arguments: Vec<String>,
}

impl TopologySpec {
    /// Two APIs and two workers of two jobs each, pools of 50.
    #[must_use]
    pub fn smoke(binary: PathBuf, provider: SocketAddr, seed: u64) -> Self {
        Self {
            binary,
            seed,
            apis: 2,
            workers: 2,
            worker_concurrency: 2,
            pool_max: 50,
            postgres_data_mib: None,
            clock_library: None,
            rule_book: None,
            webhook_secret: None,
            provider,
            api_arguments: Vec::new(),
            worker_arguments: Vec::new(),
            biller_arguments: Vec::new(),
        }
    }

    /// PostgreSQL's `max_connections`: a pool for each API, each worker and the biller, a connection more
    /// for each API, and a reserve of 40. Its replicas have the same: PostgreSQL asks for no less, and the
    /// pools of the APIs there are smaller.
    #[must_use]
    pub fn connections(&self) -> u32 {
        (self.apis + self.workers + 1) * self.pool_max + self.apis * POSITION_CONNECTIONS + RESERVED_CONNECTIONS
    }
}

/// A running system.
pub struct Topology {
    spec: TopologySpec,
    supervisor: Arc<Supervisor>,
    postgres: PostgresServer,
    /// By name, in the order of [`REPLICAS`].
    replicas: Vec<(String, PostgresServer)>,
    redis: Arc<RedisServer>,
    links: Arc<Links>,
    sinks: BTreeMap<&'static str, Sink>,
    drill: Drill,
    signing_key: SigningKey,
    app_password: String,
    read_password: String,
    apis: Vec<Arc<SystemProcess>>,
    workers: Vec<Arc<SystemProcess>>,
    alerter: Option<Arc<SystemProcess>>,
}

impl Topology {
    /// Starts everything in order: servers, database and migrations beside the replicas, links, APIs,
    /// workers. Each API has said that it is ready then, and both replicas are streaming.
    ///
    /// # Errors
    /// If some part does not start, or a replica does not stream (exit code 6, environment not ready); the
    /// others are stopped.
    pub async fn start(spec: TopologySpec, engine: &dyn Engine, supervisor: Arc<Supervisor>) -> Result<Self> {
        let postgres_spec = PostgresSpec {
            max_connections: spec.connections(),
            data_mib_max: spec.postgres_data_mib,
            ..PostgresSpec::default()
        };
        let redis_spec = RedisSpec::default();
        let mut sinks = BTreeMap::new();
        for (name, language) in [(ERRORS, Language::Envelope), (ANALYTICS, Language::Batch), (ALERTS, Language::Notice)]
        {
            sinks.insert(name, Sink::start(language, &supervisor.log_file(&format!("sink-{name}"))).await?);
        }
        let (postgres, redis, links) = tokio::try_join!(
            engine.start_postgres(&postgres_spec),
            engine.start_redis(&redis_spec),
            Links::start(spec.seed, spec.rule_book.clone()),
        )?;
        let mut topology = Self {
            spec,
            supervisor,
            postgres,
            replicas: Vec::new(),
            redis: Arc::new(redis),
            links: Arc::new(links),
            sinks,
            drill: Drill::start().await?,
            signing_key: SigningKey::generate(),
            app_password: random_password(),
            read_password: random_password(),
            apis: Vec::new(),
            workers: Vec::new(),
            alerter: None,
        };
        if let Err(error) = topology.start_system(engine).await {
            if let Err(leftover) = topology.stop().await {
                tracing::warn!("after a failed start: {leftover:#}");
            }
            return Err(error);
        }
        Ok(topology)
    }

    async fn start_system(&mut self, engine: &dyn Engine) -> Result<()> {
        let (replicas, ()) = tokio::try_join!(self.start_replicas(engine), self.migrate())?;
        self.replicas = replicas;
        for biller in BILLERS {
            self.links.open(biller, POSTGRES, self.postgres.address()).await?;
            self.links.open(biller, PROVIDER, self.spec.provider).await?;
        }
        // One after the other: a failure then has one name.
        for number in 1..=self.spec.apis {
            let spec = self.api(&format!("api-{number}")).await?;
            self.apis.push(self.supervisor.start(spec).await?);
        }
        for number in 1..=self.spec.workers {
            let spec = self.worker(&format!("worker-{number}")).await?;
            self.workers.push(self.supervisor.start(spec).await?);
        }
        try_join_all(self.apis.iter().map(|api| wait_until_ready(api))).await?;
        let spec = self.alerter_spec().await?;
        self.alerter = Some(self.supervisor.start(spec).await?);
        self.replication().await.map(drop)
    }

    async fn start_replicas(&self, engine: &dyn Engine) -> Result<Vec<(String, PostgresServer)>> {
        let starting = REPLICAS.map(|name| async move {
            let spec = PostgresSpec::replica(name, self.spec.connections());
            let server = engine.start_replica(&spec, &self.postgres).await;
            anyhow::Ok((name.to_owned(), server.map_err(|error| EndsWith::environment(format!("{error:#}")))?))
        });
        try_join_all(starting).await
    }

    /// Waits until the primary and both replicas say, by name, that they stream; one line for each.
    ///
    /// # Errors
    /// If they do not within 30 s (exit code 6, environment not ready); with what each lacks.
    pub async fn replication(&self) -> Result<Vec<String>> {
        let standing = wait_until_streaming(&self.postgres, &self.replicas, STREAMING_LIMIT).await;
        standing.map_err(|error| EndsWith::environment(format!("{error:#}")).into())
    }

    async fn migrate(&self) -> Result<()> {
        let mut connection =
            PgConnection::connect(&self.postgres.admin_dsn("postgres")).await.context("connect to the new server")?;
        connection.execute("CREATE DATABASE forecastle").await.context("create the database")?;
        connection.close().await.context("leave the new server")?;
        let spec = self.process(
            "migrate",
            &["migrate"],
            &[],
            vec![
                ("FORECASTLE_DATABASE_URL".to_owned(), self.admin_dsn()),
                ("FORECASTLE_APP_PASSWORD".to_owned(), self.app_password.clone()),
                ("FORECASTLE_READ_PASSWORD".to_owned(), self.read_password.clone()),
            ],
        );
        self.supervisor.run_for_answer(&spec, MIGRATE_LIMIT).await.context("migrate the database")?;
        if let Some(book) = self.links.rule_book() {
            book.name_writing_functions(writing_functions(&self.admin_dsn()).await?);
        }
        Ok(())
    }

    async fn api(&self, name: &str) -> Result<ProcessSpec> {
        let mut environment = self.backends(name).await?;
        let mut replicas = Vec::new();
        for (replica, server) in &self.replicas {
            let listen = self.links.open(name, replica, server.address()).await?;
            replicas.push(format!("{replica}={}", self.app_dsn_at(listen)));
        }
        environment.push(("FORECASTLE_REPLICA_URL".to_owned(), replicas.join(",")));
        let keys = self.signing_keys_file(name);
        std::fs::write(&keys, self.signing_key.setting()).with_context(|| format!("write {}", keys.display()))?;
        environment.push(("FORECASTLE_SIGNING_KEYS_FILE".to_owned(), keys.to_string_lossy().into_owned()));
        let analytics = self.links.open(name, ANALYTICS, self.sink(ANALYTICS)?.address()).await?;
        let path = catalogue::sink_path(ANALYTICS).context("find the path of analytics")?;
        environment.push(("FORECASTLE_ANALYTICS_URL".to_owned(), format!("http://{analytics}{path}")));
        let key = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        environment.push(("FORECASTLE_ANALYTICS_KEY".to_owned(), key));
        environment.push(("FORECASTLE_ANALYTICS_LINGER_MS".to_owned(), ANALYTICS_LINGER_MS.to_owned()));
        environment.extend(self.clock(name)?);
        let pool_max = self.spec.pool_max.to_string();
        // Where it is found again after a restart.
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        if let Some(secret) = &self.spec.webhook_secret {
            environment.push(("FORECASTLE_WEBHOOK_SECRETS".to_owned(), secret.setting()));
            self.links.open(PROVIDER, name, listen).await?;
        }
        let listen = listen.to_string();
        let arguments = ["serve", "--listen", &listen, "--instance", name, "--pool-max", &pool_max];
        let spec = self.process(name, &arguments, &self.spec.api_arguments, environment);
        Ok(ProcessSpec { ready_path: Some("/readyz"), ..spec })
    }

    async fn worker(&self, name: &str) -> Result<ProcessSpec> {
        let mut environment = self.backends(name).await?;
        environment.extend(self.clock(name)?);
        let concurrency = self.spec.worker_concurrency.to_string();
        let arguments = ["work", "--instance", name, "--concurrency", &concurrency, "--metrics-listen", "127.0.0.1:0"];
        Ok(self.process(name, &arguments, &self.spec.worker_arguments, environment))
    }

    /// What watches APIs, workers and the drill.
    async fn alerter_spec(&self) -> Result<ProcessSpec> {
        let mut targets = vec![format!("{}=http://{}", Drill::NAME, self.drill.address())];
        for (processes, field) in [(&self.apis, "address"), (&self.workers, "metrics")] {
            for process in processes {
                targets.push(format!("{}=http://{}", process.process_name(), process.address(field)?));
            }
        }
        let rules = self.supervisor.run.scratch().join("alert-rules.toml");
        std::fs::write(&rules, Drill::rule()).with_context(|| format!("write {}", rules.display()))?;
        let alerts = self.links.open(ALERTER, ALERTS, self.sink(ALERTS)?.address()).await?;
        let path = catalogue::sink_path(ALERTS).context("find the path of alerts")?;
        let environment = vec![
            ("FORECASTLE_WEBHOOK_URL".to_owned(), format!("http://{alerts}{path}")),
            ("FORECASTLE_ERROR_DSN".to_owned(), self.error_dsn(ALERTER).await?),
        ];
        let (targets, rules) = (targets.join(","), rules.to_string_lossy().into_owned());
        let arguments = ["alert", "--instance", ALERTER, "--targets", &targets, "--rules", &rules];
        let patience = ["--every-ms", WATCH_EVERY_MS, "--webhook-timeout-ms", WEBHOOK_TIMEOUT_MS];
        Ok(self.process(ALERTER, &arguments, &patience.map(str::to_owned), environment))
    }

    /// Opens the link of `name` to the sink of errors; gives the address of its reports.
    async fn error_dsn(&self, name: &str) -> Result<String> {
        let errors = self.links.open(name, ERRORS, self.sink(ERRORS)?.address()).await?;
        Ok(format!("http://{}@{errors}/{ERROR_PROJECT}", hex::encode(rand::random::<[u8; 16]>())))
    }

    /// Opens the links of `name` to PostgreSQL, Redis and the sink of errors; gives the environment that leads there.
    async fn backends(&self, name: &str) -> Result<Vec<(String, String)>> {
        let postgres = self.links.open(name, POSTGRES, self.postgres.address()).await?;
        let redis = self.links.open(name, RedisControl::NAME, self.redis.address()).await?;
        let dsn = self.error_dsn(name).await?;
        Ok(vec![
            ("FORECASTLE_DATABASE_URL".to_owned(), self.app_dsn_at(postgres)),
            ("FORECASTLE_REDIS_URL".to_owned(), self.redis.url_at(redis)),
            ("FORECASTLE_ERROR_DSN".to_owned(), dsn),
        ])
    }

    /// The environment of a process whose wall clock a fault may set, through a file that says it is right.
    fn clock(&self, name: &str) -> Result<Vec<(String, String)>> {
        let Some(library) = &self.spec.clock_library else {
            return Ok(Vec::new());
        };
        let file = self.clock_file(name);
        std::fs::write(&file, CLOCK_IS_RIGHT).with_context(|| format!("write {}", file.display()))?;
        Ok(clock_environment(library, &file))
    }

    /// The file that the clock of the process `name` is set through.
    #[must_use]
    pub fn clock_file(&self, name: &str) -> PathBuf {
        self.supervisor.run.scratch().join(format!("clock-{name}"))
    }

    /// The file that the API `name` reads its signing keys from, also after its start.
    #[must_use]
    pub fn signing_keys_file(&self, name: &str) -> PathBuf {
        self.supervisor.run.scratch().join(format!("signing-keys-{name}"))
    }

    /// An operator's slip in the key file of one API: for `stands` it holds no keys, the API is told to read it and goes on
    /// with those it has. What it says about that goes to the sink of errors, and nobody else is concerned.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn slip(&self, api: &SystemProcess, number: u64, stands: Duration) -> Result<()> {
        let Some(identity) = api.current_identity().filter(|_| api.runs()) else {
            return Ok(());
        };
        let file = self.signing_keys_file(api.process_name());
        let written = |text: String| std::fs::write(&file, text).with_context(|| format!("write {}", file.display()));
        written(format!("slip {number}"))?;
        let told = identity.ask_to_read_again();
        tokio::time::sleep(stands).await;
        written(self.signing_key.setting())?;
        // One that has ended meanwhile reads the right file when it starts again.
        if told.is_ok() {
            let _ = identity.ask_to_read_again();
        }
        Ok(())
    }

    /// The sink of that name: [`ERRORS`], [`ANALYTICS`] or [`ALERTS`].
    ///
    /// # Errors
    /// If there is none.
    pub fn sink(&self, name: &str) -> Result<&Sink> {
        self.sinks.get(name).with_context(|| format!("find sink {name}"))
    }

    /// What lets an alert fire although nothing is wrong.
    #[must_use]
    pub fn drill(&self) -> &Drill {
        &self.drill
    }

    /// The process that watches the others.
    ///
    /// # Errors
    /// If it was not started.
    pub fn alerter(&self) -> Result<&Arc<SystemProcess>> {
        self.alerter.as_ref().with_context(|| format!("find process {ALERTER}"))
    }

    /// The sinks by name.
    #[must_use]
    pub fn sinks(&self) -> &BTreeMap<&'static str, Sink> {
        &self.sinks
    }

    /// The run's id, which names what it makes on this host.
    #[must_use]
    pub fn run_id(&self) -> &str {
        self.supervisor.run.run_id()
    }

    fn process(
        &self,
        name: &str,
        arguments: &[&str],
        further: &[String],
        environment: Vec<(String, String)>,
    ) -> ProcessSpec {
        ProcessSpec {
            name: name.to_owned(),
            program: self.spec.binary.clone(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).chain(further.iter().cloned()).collect(),
            environment,
            ready_limit: READY_LIMIT,
            ready_path: None,
        }
    }

    /// Starts one of [`BILLERS`], which goes once to `as_of` (RFC 3339) through its own links and ends.
    /// Its exit code is an answer: 0 all settled, 5 to be run again.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn begin_bill(&self, biller: &str, as_of: &str) -> Result<OneShot> {
        let listen = |server: &str| {
            let mut links = self.links.list().into_iter();
            links.find(|link| link.process == biller && link.server == server).map(|link| link.listen)
        };
        let postgres = listen(POSTGRES).context("find the biller's link to postgres")?;
        let provider = listen(PROVIDER).context("find the biller's link to the provider")?;
        let environment = vec![("FORECASTLE_DATABASE_URL".to_owned(), self.app_dsn_at(postgres))];
        let provider = format!("http://{provider}");
        let arguments = ["bill", "--instance", biller, "--provider-url", &provider, "--as-of", as_of];
        let spec = self.process(biller, &arguments, &self.spec.biller_arguments, environment);
        self.supervisor.begin(&spec).context("run the biller")
    }

    fn app_dsn_at(&self, address: SocketAddr) -> String {
        dsn(APP_ROLE, &self.app_password, address, DATABASE)
    }

    /// DSN of the superuser on the system's database, past the links. For faults and seeding.
    #[must_use]
    pub fn admin_dsn(&self) -> String {
        self.postgres.admin_dsn(DATABASE)
    }

    /// DSN of the role that reads everything and writes nothing, past the links. For checkers.
    #[must_use]
    pub fn read_dsn(&self) -> String {
        dsn(READ_ROLE, &self.read_password, self.postgres.address(), DATABASE)
    }

    /// DSN of the system's own role, past the links: what a fault takes connections with.
    #[must_use]
    pub fn app_dsn(&self) -> String {
        self.app_dsn_at(self.postgres.address())
    }

    /// Base URL of each API, such as `http://127.0.0.1:40123`, in the order of their names; an
    /// API that was restarted has another.
    ///
    /// # Errors
    /// If an API told no address.
    pub fn api_base_urls(&self) -> Result<Vec<String>> {
        self.apis.iter().map(|api| base_url(api)).collect()
    }

    /// The process of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn process_named(&self, name: &str) -> Result<Arc<SystemProcess>> {
        let found = self.processes().into_iter().find(|process| process.process_name() == name);
        found.with_context(|| format!("find process {name}"))
    }

    /// APIs, then workers.
    #[must_use]
    pub fn processes(&self) -> Vec<Arc<SystemProcess>> {
        self.apis.iter().chain(&self.workers).cloned().collect()
    }

    /// The APIs, by number.
    #[must_use]
    pub fn apis(&self) -> &[Arc<SystemProcess>] {
        &self.apis
    }

    /// The workers, by number.
    #[must_use]
    pub fn workers(&self) -> &[Arc<SystemProcess>] {
        &self.workers
    }

    /// Redis, for a fault to end and to start again.
    #[must_use]
    pub fn redis_control(&self) -> Arc<RedisControl> {
        Arc::new(RedisControl::new(Arc::clone(&self.redis), Arc::clone(&self.links)))
    }

    /// The primary or a replica by its name, for a fault to end, to freeze and to start again.
    ///
    /// # Errors
    /// If there is no server of that name.
    pub fn postgres_control(&self, name: &str) -> Result<Arc<PostgresControl>> {
        Ok(Arc::new(PostgresControl::new(name, self.postgres_named(name)?.clone())))
    }

    /// The primary or a replica by its name.
    ///
    /// # Errors
    /// If there is no server of that name.
    pub fn postgres_named(&self, name: &str) -> Result<&PostgresServer> {
        let replica = self.replicas.iter().find(|(replica, _)| replica == name).map(|(_, server)| server);
        let found = if name == POSTGRES { Some(&self.postgres) } else { replica };
        found.with_context(|| format!("find server {name}"))
    }

    /// What the provider signs its events with, where it sends some.
    #[must_use]
    pub fn webhook_secret(&self) -> Option<WebhookSecret> {
        self.spec.webhook_secret
    }

    /// The links, with the client that faults act through.
    #[must_use]
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// The PostgreSQL server.
    #[must_use]
    pub fn postgres(&self) -> &PostgresServer {
        &self.postgres
    }

    /// Its streaming replicas by name.
    #[must_use]
    pub fn replicas(&self) -> &[(String, PostgresServer)] {
        &self.replicas
    }

    /// The Redis server.
    #[must_use]
    pub fn redis(&self) -> &RedisServer {
        &self.redis
    }

    /// The key that the APIs sign with.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing_key
    }

    /// Stops everything in order: processes by SIGTERM, links, servers. Gives the names of the
    /// processes that did not drain in 20 s or exited with another code than 0. May be called
    /// again.
    ///
    /// # Errors
    /// If something stays; everything was tried by then.
    pub async fn stop(&self) -> Result<Vec<String>> {
        let processes: Vec<_> = self.processes().into_iter().chain(self.alerter.clone()).collect();
        let outcomes = join_all(processes.iter().map(|process| process.terminate(DRAIN_LIMIT))).await;
        let mut undrained = Vec::new();
        let mut failures = Vec::new();
        for (process, outcome) in processes.iter().zip(outcomes) {
            match outcome {
                Ok(true) => {}
                Ok(false) => undrained.push(process.process_name().to_owned()),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        let mut outcomes = vec![self.links.close().await, self.redis.stop().await];
        join_all(self.sinks.values().map(Sink::stop)).await;
        // Before their primary: its log has no word of lost streams then.
        outcomes.extend(join_all(self.replicas.iter().map(|(_, replica)| replica.stop())).await);
        outcomes.push(self.postgres.stop().await);
        for outcome in outcomes {
            if let Err(error) = outcome {
                failures.push(format!("{error:#}"));
            }
        }
        if failures.is_empty() { Ok(undrained) } else { bail!("stop the system: {}", failures.join("; ")) }
    }
}

fn base_url(api: &SystemProcess) -> Result<String> {
    Ok(format!("http://{}", api.address("address")?))
}

/// Asks `/readyz` until it answers 200.
async fn wait_until_ready(api: &SystemProcess) -> Result<()> {
    let url = format!("{}/readyz", base_url(api)?);
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let failure = match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => {
                let status = answer.status();
                let body: Value = answer.json().await.unwrap_or_default();
                format!("{status} {body}")
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline || !api.runs() {
            bail!("{} is not ready within {} s: {failure}", api.process_name(), READY_LIMIT.as_secs());
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}
