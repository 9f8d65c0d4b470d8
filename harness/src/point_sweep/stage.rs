//! What stays warm over a whole sweep: PostgreSQL with the template, Redis, the keys and addresses of the processes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nogo_invariants::Canaries;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::plan::{Story, SweepSettings};
use crate::environment::engine::{Engine, PostgresSpec, RedisSpec};
use crate::environment::free_port::free_port;
use crate::environment::registration::Registration;
use crate::environment::servers::{PostgresServer, RedisServer, dsn, random_password};
use crate::environment::signing_key::SigningKey;
use crate::environment::supervisor::{ProcessSpec, Supervisor};
use crate::environment::writing_functions::writing_functions;
use crate::provider::WebhookSecret;
use crate::randomness::Randomness;
use crate::recorder::RunClock;
use crate::workload::{LoadSpec, TenantProfile, draw_tenants};

/// The database that every case's is cloned from.
pub(super) const TEMPLATE: &str = "sweep_template";
/// The database of the case under way.
pub(super) const CASE: &str = "sweep_case";
const CREATE_TEMPLATE: &str = "CREATE DATABASE sweep_template";
const DROP_CASE: &str = "DROP DATABASE IF EXISTS sweep_case WITH (FORCE)";
const CREATE_CASE: &str = "CREATE DATABASE sweep_case TEMPLATE sweep_template";
/// Connections of all processes of a case, readers and administrators.
const CONNECTIONS_MAX: u32 = 150;
/// Time for the migrations.
const MIGRATE_LIMIT: Duration = Duration::from_secs(120);
/// Tenants: one on FREE, which stands by, and one on STARTER, whose story it is.
const TENANTS: usize = 2;
/// Place of the story's tenant among them.
pub(super) const HERO: usize = 1;

/// See the module.
pub(super) struct Stage {
    pub story: Story,
    pub settings: SweepSettings,
    pub postgres: PostgresServer,
    pub redis: RedisServer,
    /// The sweep's copy of the system's binary.
    pub binary: PathBuf,
    pub registration: Arc<Registration>,
    pub clock: RunClock,
    pub randomness: Randomness,
    pub canaries: Arc<Canaries>,
    pub profiles: Vec<TenantProfile>,
    pub signing_key: SigningKey,
    /// Functions that write although a SELECT calls them.
    pub writing_functions: Vec<String>,
    pub webhook_secret: WebhookSecret,
    app_password: String,
    read_password: String,
    api_ports: BTreeMap<String, u16>,
}

impl Stage {
    /// Starts the servers and migrates the template.
    ///
    /// # Errors
    /// If a server does not start or the migrations fail; what was started is stopped.
    pub(super) async fn raise(
        story: Story,
        settings: SweepSettings,
        engine: &dyn Engine,
        registration: &Arc<Registration>,
        binary: PathBuf,
        clock: RunClock,
        supervisor: &Arc<Supervisor>,
    ) -> Result<Self> {
        let postgres_spec = PostgresSpec { max_connections: CONNECTIONS_MAX, ..PostgresSpec::default() };
        let redis_spec = RedisSpec::default();
        let (postgres, redis) =
            tokio::try_join!(engine.start_postgres(&postgres_spec), engine.start_redis(&redis_spec))?;
        let randomness = Randomness::new(settings.seed);
        let mut canaries = Canaries::new(settings.seed.to_string());
        let load = LoadSpec { tenants: TENANTS, hot_tenants: 0, ..LoadSpec::default() };
        let profiles = draw_tenants(randomness, &load, &mut canaries);
        let mut api_ports = BTreeMap::new();
        for name in ["api-1", "api-2"] {
            api_ports.insert(name.to_owned(), free_port()?);
        }
        let mut stage = Self {
            story,
            settings,
            postgres,
            redis,
            binary,
            registration: Arc::clone(registration),
            clock,
            randomness,
            canaries: Arc::new(canaries),
            profiles,
            signing_key: SigningKey::generate(),
            writing_functions: Vec::new(),
            webhook_secret: WebhookSecret::generate(),
            app_password: random_password(),
            read_password: random_password(),
            api_ports,
        };
        if let Err(error) = stage.migrate(supervisor).await {
            stage.strike().await?;
            return Err(error);
        }
        Ok(stage)
    }

    async fn migrate(&mut self, supervisor: &Arc<Supervisor>) -> Result<()> {
        let mut admin = self.admin("postgres").await?;
        admin.execute(CREATE_TEMPLATE).await.context("create the template")?;
        let spec = ProcessSpec {
            name: "migrate".to_owned(),
            program: self.binary.clone(),
            arguments: vec!["migrate".to_owned()],
            environment: vec![
                ("FORECASTLE_DATABASE_URL".to_owned(), self.postgres.admin_dsn(TEMPLATE)),
                ("FORECASTLE_APP_PASSWORD".to_owned(), self.app_password.clone()),
                ("FORECASTLE_READ_PASSWORD".to_owned(), self.read_password.clone()),
            ],
            ready_limit: MIGRATE_LIMIT,
            ready_path: None,
        };
        supervisor.run_for_answer(&spec, MIGRATE_LIMIT).await.context("migrate the template")?;
        admin.close().await.context("leave the server")?;
        self.writing_functions = writing_functions(&self.postgres.admin_dsn(TEMPLATE)).await?.into_iter().collect();
        Ok(())
    }

    /// Gives the case a database as the template is, and an empty Redis that knows no script.
    ///
    /// # Errors
    /// If somebody is still connected to the template, or a server does not answer.
    pub(super) async fn set_up(&self) -> Result<()> {
        let mut admin = self.admin("postgres").await?;
        admin.execute(DROP_CASE).await.context("drop the last case's database")?;
        admin.execute(CREATE_CASE).await.context("clone the template")?;
        admin.close().await.context("leave the server")?;
        let client = redis::Client::open(self.redis.url()).context("read the redis address")?;
        let mut redis = client.get_multiplexed_async_connection().await.context("connect to redis")?;
        let () = redis::cmd("FLUSHALL").query_async(&mut redis).await.context("flush redis")?;
        let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut redis).await.context("flush redis's scripts")?;
        Ok(())
    }

    /// Stops the servers. May be called again.
    ///
    /// # Errors
    /// If one of them stays.
    pub(super) async fn strike(&self) -> Result<()> {
        let (redis, postgres) = tokio::join!(self.redis.stop(), self.postgres.stop());
        match (redis, postgres) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
            (Err(one), Err(other)) => bail!("{one:#}; {other:#}"),
        }
    }

    /// A connection of the superuser, past every proxy.
    pub(super) async fn admin(&self, database: &str) -> Result<PgConnection> {
        PgConnection::connect(&self.postgres.admin_dsn(database)).await.context("connect as the administrator")
    }

    /// DSN of the system's own role, by way of a proxy.
    pub(super) fn app_dsn_at(&self, address: SocketAddr, database: &str) -> String {
        dsn("forecastle_app", &self.app_password, address, database)
    }

    /// DSN of the role that reads everything and writes nothing, past every proxy.
    pub(super) fn read_dsn(&self, database: &str) -> String {
        dsn("forecastle_read", &self.read_password, self.postgres.address(), database)
    }

    /// Where an API listens, in every incarnation.
    pub(super) fn api_address(&self, name: &str) -> Result<SocketAddr> {
        let port = self.api_ports.get(name).with_context(|| format!("find the port of {name}"))?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)))
    }
}
