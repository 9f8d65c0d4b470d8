//! The world of one case: a database, processes, links that follow their protocol, a provider, a record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use nogo_faults::{BookLimits, Origin, ProcessIdentity, Protocol, ProxySpec, RuleBook, ToxidHandle, ToxidServer};
use nogo_invariants::final_state::BillingRun;
use nogo_invariants::history::{Event, ProcessChange, ProcessEvent};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::plan::Story;
use super::stage::Stage;
use crate::client::Api;
use crate::environment::supervisor::{ProcessSpec, Supervisor};
use crate::environment::system_process::SystemProcess;
use crate::provider::{Behaviour, BookSnapshot, Charge, Provider, ProviderBook};
use crate::recorder::Recorder;
use crate::run::pump_process_events;
use crate::workload::Driver;

/// Every process that a case may have; those ending in 2 take over for those ending in 1.
const PROCESSES: [&str; 6] = ["api-1", "api-2", "worker-1", "worker-2", "biller-1", "biller-2"];
/// Where requests of a story may go.
pub(super) const APIS: [&str; 2] = ["api-1", "api-2"];
/// Time for a process to say its first line and, of an API, to be ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Patience of a client with one request.
const REQUEST_LIMIT: Duration = Duration::from_millis(1_500);
/// One run of the biller.
const PASS_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at a condition.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Every period that holds today has ended by then, and the next one has not.
const MONTH: SignedDuration = SignedDuration::from_hours(33 * 24);

/// What the links of a process lead to.
#[derive(Clone, Copy)]
enum Server {
    Postgres,
    Redis,
    Provider,
}

impl Server {
    const ALL: [Self; 3] = [Self::Postgres, Self::Redis, Self::Provider];

    const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Provider => "provider",
        }
    }

    const fn protocol(self) -> Protocol {
        match self {
            Self::Postgres => Protocol::Postgres,
            Self::Redis => Protocol::Redis,
            Self::Provider => Protocol::Http,
        }
    }
}

/// See the module.
pub(super) struct Scene {
    pub stage: Arc<Stage>,
    pub recorder: Recorder,
    pub driver: Driver,
    pub book: RuleBook,
    pub reader: PgPool,
    pub provider: Provider,
    /// The time that the story's biller brings the books to.
    pub as_of: Timestamp,
    database: &'static str,
    supervisor: Arc<Supervisor>,
    pump: JoinHandle<()>,
    proxies: ToxidHandle,
    links: BTreeMap<(String, &'static str), SocketAddr>,
    cast: Mutex<Cast>,
}

/// Processes of the case, by name.
#[derive(Default)]
struct Cast {
    services: BTreeMap<String, Arc<SystemProcess>>,
    one_shots: BTreeMap<String, ProcessIdentity>,
    /// Killed on purpose.
    struck: BTreeSet<String>,
    billing_runs: Vec<BillingRun>,
}

impl Scene {
    /// Opens links and record; starts no process of the system yet. `before`: the record's first lines; `charges`: what
    /// the provider's book holds already.
    ///
    /// # Errors
    /// If something cannot be opened.
    pub(super) async fn open(
        stage: &Arc<Stage>,
        database: &'static str,
        folder: &Path,
        before: Vec<Event>,
        charges: Vec<Charge>,
    ) -> Result<Self> {
        let recorder = Recorder::resume(&folder.join("history.ndjson.zst"), before, stage.clock)?;
        let (supervisor, events) = Supervisor::new(Arc::clone(&stage.registration), folder.join("logs"))?;
        let pump = tokio::spawn(pump_process_events(events, recorder.clone()));
        let provider_book = ProviderBook::with_charges(stage.randomness, Behaviour::HONEST, charges);
        let provider = Provider::start_with(provider_book, stage.clock).await.context("start the payment provider")?;
        let book = RuleBook::new(stage.clock.at(0), BookLimits::default());
        book.name_writing_functions(stage.writing_functions.iter().cloned());
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let proxies = ToxidServer::start(stage.settings.seed, any).await.context("start the proxy server")?;
        let mut links = BTreeMap::new();
        for process in PROCESSES {
            for server in Server::ALL {
                let upstream = match server {
                    Server::Postgres => stage.postgres.address(),
                    Server::Redis => stage.redis.address(),
                    Server::Provider => provider.address(),
                };
                let name = format!("{process}-{}", server.name());
                let spec = ProxySpec { name, listen: any.to_string(), upstream: upstream.to_string() };
                let inspectors = book.inspectors(Origin::of_process(process), server.protocol());
                let view = proxies.create_proxy(&spec, Some(inspectors)).await.context("open a link")?;
                let listen = view.listen.parse().with_context(|| format!("read the link's address {}", view.listen))?;
                links.insert((process.to_owned(), server.name()), listen);
            }
        }
        let apis = APIS
            .iter()
            .map(|name| Api::new(name, &format!("http://{}", stage.api_address(name)?)))
            .collect::<Result<Vec<_>>>()?;
        let driver = Driver::new(recorder.clone(), apis, Arc::clone(&stage.canaries), REQUEST_LIMIT);
        let reader = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy(&stage.read_dsn(database))
            .context("read the reading role's address")?;
        let now = Timestamp::now();
        let as_of = match stage.story {
            Story::Webhook => now,
            _ => now.checked_add(MONTH).context("compute the end of the month")?,
        };
        Ok(Self {
            stage: Arc::clone(stage),
            recorder,
            driver,
            book,
            reader,
            provider,
            as_of,
            database,
            supervisor,
            pump,
            proxies,
            links,
            cast: Mutex::default(),
        })
    }

    /// Starts a service and waits until it is ready; anew, if it has ended.
    ///
    /// # Errors
    /// If it does not become ready in time.
    pub(super) async fn start(&self, name: &str) -> Result<()> {
        let known = self.cast().services.get(name).cloned();
        match known {
            Some(service) => drop(service.start().await?),
            None => {
                let service = self.supervisor.start(self.service(name)?).await?;
                self.cast().services.insert(name.to_owned(), service);
            }
        }
        if APIS.contains(&name) { self.wait_until_ready(name).await } else { Ok(()) }
    }

    async fn wait_until_ready(&self, name: &str) -> Result<()> {
        let url = format!("http://{}/readyz", self.stage.api_address(name)?);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build()?;
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let said = match client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => answer.status().to_string(),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                bail!("{name} is not ready within {} s: {said}", READY_LIMIT.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn service(&self, name: &str) -> Result<ProcessSpec> {
        let lease = self.stage.settings.lease_ms;
        let mut arguments = settings(&[
            ("instance", name.to_owned()),
            ("acquire-timeout-ms", "1000".to_owned()),
            ("statement-timeout-ms", "2000".to_owned()),
            ("lock-timeout-ms", "800".to_owned()),
            ("idle-transaction-timeout-ms", lease.to_string()),
        ]);
        let mut environment = vec![
            ("FORECASTLE_DATABASE_URL".to_owned(), self.app_dsn(name)?),
            ("FORECASTLE_REDIS_URL".to_owned(), { self.stage.redis.url_at(self.link(name, Server::Redis)?) }),
        ];
        let command = match Origin::of_process(name).role.as_str() {
            "api" => {
                arguments.extend(settings(&[
                    ("listen", self.stage.api_address(name)?.to_string()),
                    ("access-ttl-s", "14400".to_owned()),
                    ("trusted-proxies", "127.0.0.0/8".to_owned()),
                    ("cache-trust-ms", lease.to_string()),
                    ("gauges-every-ms", "600000".to_owned()),
                    ("drain-delay-ms", "0".to_owned()),
                    ("provider-url", format!("http://{}", self.link(name, Server::Provider)?)),
                    ("provider-timeout-ms", "500".to_owned()),
                    ("provider-patience-ms", "1000".to_owned()),
                ]));
                environment.push(("FORECASTLE_SIGNING_KEYS".to_owned(), self.stage.signing_key.setting()));
                environment.push(("FORECASTLE_WEBHOOK_SECRETS".to_owned(), self.stage.webhook_secret.setting()));
                "serve"
            }
            "worker" => {
                arguments.extend(settings(&[
                    ("lease-ms", lease.to_string()),
                    ("heartbeat-ms", (lease / 3).to_string()),
                    ("poll-ms", POLL_MS.to_string()),
                    ("backoff-base-ms", "50".to_owned()),
                    ("concurrency", "2".to_owned()),
                ]));
                "work"
            }
            role => bail!("a {role} is no service"),
        };
        arguments.insert(0, command.to_owned());
        Ok(ProcessSpec {
            name: name.to_owned(),
            program: self.stage.binary.clone(),
            arguments,
            environment,
            ready_limit: READY_LIMIT,
            ready_path: None,
        })
    }

    /// Runs a biller once, to `as_of`; keeps what came of it.
    ///
    /// # Errors
    /// If it cannot be started or exceeds its limit.
    pub(super) async fn bill(&self, name: &str, as_of: Timestamp) -> Result<BillingRun> {
        let lease = self.stage.settings.lease_ms;
        let mut arguments = vec!["bill".to_owned()];
        arguments.extend(settings(&[
            ("instance", name.to_owned()),
            ("as-of", as_of.to_string()),
            ("provider-url", format!("http://{}", self.link(name, Server::Provider)?)),
            ("provider-timeout-ms", "500".to_owned()),
            ("parallel", "1".to_owned()),
            ("lock-timeout-ms", "800".to_owned()),
            ("idle-transaction-timeout-ms", lease.to_string()),
        ]));
        let spec = ProcessSpec {
            name: name.to_owned(),
            program: self.stage.binary.clone(),
            arguments,
            environment: vec![("FORECASTLE_DATABASE_URL".to_owned(), self.app_dsn(name)?)],
            ready_limit: READY_LIMIT,
            ready_path: None,
        };
        let shot = self.supervisor.begin(&spec)?;
        if let Some(identity) = shot.identity() {
            self.cast().one_shots.insert(name.to_owned(), identity);
        }
        let finished = shot.finish(PASS_LIMIT).await.context("run the biller")?;
        let killed_on_purpose = {
            let mut cast = self.cast();
            cast.one_shots.remove(name);
            cast.struck.remove(name) && finished.code.is_none()
        };
        self.recorder.process(ProcessEvent {
            i: 0,
            t_ns: 0,
            name: name.to_owned(),
            event: if finished.code.is_some() { ProcessChange::Exited } else { ProcessChange::Killed },
            planned: killed_on_purpose || matches!(finished.code, Some(0 | RUN_AGAIN)),
            code: finished.code,
            signal: None,
        });
        let said = finished.stdout.lines().last().unwrap_or_default();
        self.recorder.note(&format!("{name} to {as_of}: {said}"));
        let run = BillingRun { as_of_us: as_of.as_microsecond(), exit_code: finished.code, killed_on_purpose };
        self.cast().billing_runs.push(run.clone());
        Ok(run)
    }

    /// Which process has that name now.
    pub(super) fn identity(&self, name: &str) -> Option<ProcessIdentity> {
        let cast = self.cast();
        let service = cast.services.get(name).and_then(|service| service.current_identity());
        service.or_else(|| cast.one_shots.get(name).copied())
    }

    /// SIGKILL; planned. Returns when it is gone.
    ///
    /// # Errors
    /// If there is none of that name, or it outlives its limit.
    pub(super) async fn kill(&self, name: &str) -> Result<()> {
        let (service, identity) = {
            let mut cast = self.cast();
            cast.struck.insert(name.to_owned());
            (cast.services.get(name).cloned(), cast.one_shots.get(name).copied())
        };
        if let Some(service) = service {
            return service.kill_now().await;
        }
        let identity = identity.with_context(|| format!("find {name}, to kill it"))?;
        // NotFound: it has just ended by itself.
        let _ = identity.kill();
        let deadline = Instant::now() + Duration::from_secs(10);
        while identity.alive() {
            if Instant::now() > deadline {
                bail!("{name} outlives its SIGKILL");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Whether a service of that name was started and runs.
    pub(super) fn runs(&self, name: &str) -> bool {
        self.cast().services.get(name).is_some_and(|service| service.runs())
    }

    /// Services that were started and do not run.
    pub(super) fn ended_services(&self) -> Vec<String> {
        let cast = self.cast();
        cast.services.iter().filter(|(_, service)| !service.runs()).map(|(name, _)| name.clone()).collect()
    }

    /// The biller's runs so far.
    pub(super) fn billing_runs(&self) -> Vec<BillingRun> {
        self.cast().billing_runs.clone()
    }

    /// DSN that reads everything and writes nothing.
    pub(super) fn read_dsn(&self) -> String {
        self.stage.read_dsn(self.database)
    }

    /// Ends the services, by SIGTERM if `drains`, and the links; the provider's book. The record goes on.
    ///
    /// # Errors
    /// If a process outlives its end.
    pub(super) async fn close(self, drains: bool) -> Result<(Recorder, BookSnapshot)> {
        let services: Vec<Arc<SystemProcess>> = self.cast().services.values().cloned().collect();
        let ending = services.iter().map(|service| async move {
            if drains { service.terminate(READY_LIMIT).await.map(drop) } else { service.kill_now().await }
        });
        let ended = futures_util::future::join_all(ending).await;
        self.reader.close().await;
        self.book.remove_all();
        self.proxies.stop().await;
        let charged = self.provider.stop().await;
        drop((services, self.cast, self.supervisor, self.driver));
        // Nobody can send events any more, so the pump has seen every exit.
        tokio::time::timeout(Duration::from_secs(5), self.pump).await.ok();
        ended.into_iter().collect::<Result<Vec<()>>>()?;
        Ok((self.recorder, charged))
    }

    fn app_dsn(&self, process: &str) -> Result<String> {
        Ok(self.stage.app_dsn_at(self.link(process, Server::Postgres)?, self.database))
    }

    fn link(&self, process: &str, server: Server) -> Result<SocketAddr> {
        let link = self.links.get(&(process.to_owned(), server.name()));
        link.copied().with_context(|| format!("find the link from {process} to {}", server.name()))
    }

    fn cast(&self) -> MutexGuard<'_, Cast> {
        self.cast.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longest time between two looks of a worker at the queue.
pub(super) const POLL_MS: u64 = 600;
/// Exit code of a biller that left a payment unsettled.
const RUN_AGAIN: i32 = 5;

fn settings(flags: &[(&str, String)]) -> Vec<String> {
    flags.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]).collect()
}
