//! Flags and their environment twins: `--pool-max` is `FORECASTLE_POOL_MAX`. Times end in `-ms` or `-s`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use forecastle_alert::Target;
use forecastle_api::TrustedNetwork;
use forecastle_domain::{Flag, LaunchPhase};
use forecastle_forecast::Calculator;
use forecastle_store::{CacheOptions, DbOptions, ReplicaAddress, ReplicaOptions};
use tracing_subscriber::filter::LevelFilter;
use uuid::Uuid;

use crate::billing_args::BillingTermsArgs;
use crate::connection_args::ConnectionArgs;

/// Multi-tenant forecasting.
#[derive(Parser)]
#[command(name = "forecastle", version)]
pub(crate) struct Cli {
    /// Least important level that is logged: error, warn, info, debug, trace or off.
    #[arg(long, env = "FORECASTLE_LOG_LEVEL", default_value = "info", global = true)]
    pub(crate) log_level: LevelFilter,
    /// Most log lines that may wait to be written; further ones are dropped and counted.
    #[arg(long, env = "FORECASTLE_LOG_QUEUE_MAX", default_value_t = 8_192, global = true, value_parser = log_queue_max)]
    pub(crate) log_queue_max: usize,
    /// Where errors are reported by Sentry's protocol, http://key@host:port/project; absent: nowhere.
    #[arg(long, env = "FORECASTLE_ERROR_DSN", hide_env_values = true, global = true)]
    pub(crate) error_dsn: Option<String>,
    /// Most error reports that may wait; further ones are dropped and counted.
    #[arg(long, env = "FORECASTLE_ERROR_QUEUE_MAX", default_value_t = 256, global = true)]
    pub(crate) error_queue_max: usize,
    /// Longest time for one of them, and for the last ones when the process ends.
    #[arg(long, env = "FORECASTLE_ERROR_TIMEOUT_MS", default_value_t = 2_000, global = true)]
    pub(crate) error_timeout_ms: u64,
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn log_queue_max(text: &str) -> Result<usize, String> {
    let wanted = text.parse().ok().filter(|lines| (1..=1_000_000).contains(lines));
    wanted.ok_or_else(|| "a number from 1 to 1000000 is wanted".to_owned())
}

impl Command {
    /// Name of this process, as logs, reports and the database know it.
    pub(crate) fn instance(&self) -> &str {
        match self {
            Self::Serve(args) => &args.instance,
            Self::Work(args) => &args.instance,
            Self::Bill(args) => &args.instance,
            Self::Mail(args) => &args.instance,
            Self::Alert(args) => &args.instance,
            Self::Migrate(_) => "migrate",
            Self::Seed(_) => "seed",
            Self::Compute(_) => "compute",
            Self::Flag(_) => "flag",
            Self::Openapi => "openapi",
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Answer HTTP.
    Serve(Box<ServeArgs>),
    /// Run forecast jobs.
    Work(WorkArgs),
    /// Bring invoices and payments to a time, once or for ever.
    Bill(BillArgs),
    /// Send the mails that wait in the outbox.
    Mail(Box<MailArgs>),
    /// Watch the other processes and tell people what is wrong.
    Alert(AlertArgs),
    /// Create roles and schema, or bring them up to date.
    Migrate(MigrateArgs),
    /// Load customers in bulk.
    Seed(SeedArgs),
    /// Compute forecasts or calculators: one JSON input a line in, one JSON answer a line out.
    Compute(ComputeArgs),
    /// Switch features for one customer.
    Flag(FlagArgs),
    /// Print the OpenAPI document.
    Openapi,
}

/// How to reach PostgreSQL.
#[derive(Args)]
pub(crate) struct DbArgs {
    /// postgres://user:password@host:port/database
    #[arg(long, env = "FORECASTLE_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Most connections of this process, among them those on which serve (two) and work (one) listen; serve
    /// with --replica-url has one more [default: 50; work: concurrency + 5; bill: parallel + 2].
    #[arg(long, env = "FORECASTLE_POOL_MAX")]
    pool_max: Option<u32>,
    /// Longest wait for a connection.
    #[arg(long, env = "FORECASTLE_ACQUIRE_TIMEOUT_MS", default_value_t = 2_000)]
    acquire_timeout_ms: u64,
    /// Longest run of a statement.
    #[arg(long, env = "FORECASTLE_STATEMENT_TIMEOUT_MS", default_value_t = 4_000)]
    statement_timeout_ms: u64,
    /// Longest wait for a lock.
    #[arg(long, env = "FORECASTLE_LOCK_TIMEOUT_MS", default_value_t = 2_000)]
    lock_timeout_ms: u64,
    /// Longest silence inside a transaction.
    #[arg(long, env = "FORECASTLE_IDLE_TRANSACTION_TIMEOUT_MS", default_value_t = 10_000)]
    idle_transaction_timeout_ms: u64,
    /// How long a connection is used, or kept unused, before it is checked and may be replaced.
    #[arg(long, env = "FORECASTLE_CONNECTION_CHECK_MS", default_value_t = 60_000)]
    connection_check_ms: u64,
}

impl DbArgs {
    pub(crate) fn options(&self, application_name: &str, pool_max_default: u32) -> DbOptions {
        DbOptions {
            max_connections: self.pool_max.unwrap_or(pool_max_default),
            acquire_timeout: Duration::from_millis(self.acquire_timeout_ms),
            statement_timeout: Duration::from_millis(self.statement_timeout_ms),
            lock_timeout: Duration::from_millis(self.lock_timeout_ms),
            idle_in_transaction_timeout: Duration::from_millis(self.idle_transaction_timeout_ms),
            kept_at_hand_max: Duration::from_millis(self.connection_check_ms),
            ..DbOptions::new(&self.database_url, application_name)
        }
    }
}

/// How to reach Redis.
#[derive(Args)]
pub(crate) struct RedisArgs {
    /// redis://host:port/
    #[arg(long, env = "FORECASTLE_REDIS_URL", hide_env_values = true)]
    redis_url: String,
    /// Longest wait for an answer.
    #[arg(long, env = "FORECASTLE_REDIS_TIMEOUT_MS", default_value_t = 250)]
    redis_timeout_ms: u64,
}

impl RedisArgs {
    pub(crate) fn options(&self) -> CacheOptions {
        CacheOptions { redis_url: self.redis_url.clone(), timeout: Duration::from_millis(self.redis_timeout_ms) }
    }
}

/// Copies of the database that may answer reads.
#[derive(Args)]
pub(crate) struct ReplicaArgs {
    /// A streaming replica, as name=postgres://user:password@host:port/database; several by commas or by
    /// repeating the flag. Its name stands in metrics.
    #[arg(long, env = "FORECASTLE_REPLICA_URL", hide_env_values = true, value_delimiter = ',')]
    replica_url: Vec<String>,
    /// Most connections to each replica.
    #[arg(long, env = "FORECASTLE_REPLICA_POOL_MAX", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    replica_pool_max: u32,
    /// Longest wait for a replica's connection and first answer, before the read goes elsewhere.
    #[arg(long, env = "FORECASTLE_REPLICA_OPENING_TIMEOUT_MS", default_value_t = 500)]
    replica_opening_timeout_ms: u64,
    /// Longest run of a statement on a replica.
    #[arg(long, env = "FORECASTLE_REPLICA_STATEMENT_TIMEOUT_MS", default_value_t = 1_000)]
    replica_statement_timeout_ms: u64,
    /// Longest wait for a replica to replay what a read must see.
    #[arg(long, env = "FORECASTLE_REPLICA_CATCH_UP_MS", default_value_t = 20)]
    replica_catch_up_ms: u64,
    /// Time between two looks at a replica.
    #[arg(long, env = "FORECASTLE_REPLICA_POLL_MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    replica_poll_ms: u64,
    /// Longest wait for the primary to say how far its log reaches.
    #[arg(long, env = "FORECASTLE_REPLICA_POSITION_TIMEOUT_MS", default_value_t = 500)]
    replica_position_timeout_ms: u64,
}

impl ReplicaArgs {
    pub(crate) fn options(&self) -> Result<ReplicaOptions, &'static str> {
        let replicas: Result<Vec<_>, _> = self.replica_url.iter().map(|text| ReplicaAddress::parse(text)).collect();
        Ok(ReplicaOptions {
            replicas: replicas?,
            max_connections: self.replica_pool_max,
            opening_timeout: Duration::from_millis(self.replica_opening_timeout_ms),
            statement_timeout: Duration::from_millis(self.replica_statement_timeout_ms),
            catch_up_wait: Duration::from_millis(self.replica_catch_up_ms),
            poll_every: Duration::from_millis(self.replica_poll_ms),
            position_timeout: Duration::from_millis(self.replica_position_timeout_ms),
        })
    }
}

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) db: DbArgs,
    #[command(flatten)]
    pub(crate) replicas: ReplicaArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    #[command(flatten)]
    pub(crate) connections: ConnectionArgs,
    /// Where to listen; port 0 takes a free one and prints it.
    #[arg(long, env = "FORECASTLE_LISTEN", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Name of this process in logs and in the database's list of connections.
    #[arg(long, env = "FORECASTLE_INSTANCE", default_value = "api")]
    pub(crate) instance: String,
    /// kid:seed[,kid2:seed2]: Ed25519 seeds of 32 bytes, unpadded base64url; the first one signs.
    #[arg(
        long,
        env = "FORECASTLE_SIGNING_KEYS",
        hide_env_values = true,
        required_unless_present = "signing_keys_file"
    )]
    pub(crate) signing_keys: Option<String>,
    /// The same in a file, one key on a line or separated by commas; read again on SIGHUP and when it changes.
    #[arg(long, env = "FORECASTLE_SIGNING_KEYS_FILE", conflicts_with = "signing_keys")]
    pub(crate) signing_keys_file: Option<PathBuf>,
    /// Time between two looks at that file.
    #[arg(long, env = "FORECASTLE_SIGNING_KEYS_CHECK_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) signing_keys_check_ms: u64,
    /// Lifetime of an access token.
    #[arg(long, env = "FORECASTLE_ACCESS_TTL_S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=forecastle_api::tokens::LIFETIME_S_MAX))]
    pub(crate) access_ttl_s: u64,
    /// Lifetime of a refresh token.
    #[arg(long, env = "FORECASTLE_REFRESH_TTL_S", default_value_t = 2_592_000)]
    pub(crate) refresh_ttl_s: u64,
    /// Longest lifetime of a session.
    #[arg(long, env = "FORECASTLE_SESSION_TTL_S", default_value_t = 7_776_000)]
    pub(crate) session_ttl_s: u64,
    /// How long a rotated refresh token is still honoured.
    #[arg(long, env = "FORECASTLE_REFRESH_GRACE_MS", default_value_t = 10_000)]
    pub(crate) refresh_grace_ms: u64,
    /// How long a session's standing is kept in Redis.
    #[arg(long, env = "FORECASTLE_SESSION_CACHE_MS", default_value_t = 30_000)]
    pub(crate) session_cache_ms: u64,
    /// How long scenarios, results and dashboards are kept in Redis; 0 keeps none.
    #[arg(long, env = "FORECASTLE_CACHE_TTL_MS", default_value_t = 300_000)]
    pub(crate) cache_ttl_ms: u64,
    /// How long cached values are given out without word from PostgreSQL that none has changed; while Redis
    /// is lost, a write may wait so long for an instance that died.
    #[arg(long, env = "FORECASTLE_CACHE_TRUST_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=20_000))]
    pub(crate) cache_trust_ms: u64,
    /// How long plans are kept in Redis.
    #[arg(long, env = "FORECASTLE_ENTITLEMENT_CACHE_MS", default_value_t = 10_000)]
    pub(crate) entitlement_cache_ms: u64,
    /// How long the answer to an idempotency key is kept.
    #[arg(long, env = "FORECASTLE_IDEMPOTENCY_TTL_S", default_value_t = 86_400)]
    pub(crate) idempotency_ttl_s: u64,
    /// Longest work on one request.
    #[arg(long, env = "FORECASTLE_REQUEST_TIMEOUT_MS", default_value_t = 10_000)]
    pub(crate) request_timeout_ms: u64,
    /// Time between two counts of what waits (queue, payments, mails), for metrics.
    #[arg(long, env = "FORECASTLE_GAUGES_EVERY_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) gauges_every_ms: u64,
    /// How long new requests are still taken after SIGTERM, while /readyz says 503; longer than whoever
    /// distributes requests takes to notice.
    #[arg(long, env = "FORECASTLE_DRAIN_DELAY_MS", default_value_t = 500)]
    pub(crate) drain_delay_ms: u64,
    /// Longest drain after that.
    #[arg(long, env = "FORECASTLE_DRAIN_TIMEOUT_MS", default_value_t = 30_000)]
    pub(crate) drain_timeout_ms: u64,
    /// Largest request body, bytes.
    #[arg(long, env = "FORECASTLE_BODY_BYTES_MAX", default_value_t = 1_048_576)]
    pub(crate) body_bytes_max: usize,
    /// Networks whose X-Forwarded-For is believed, separated by commas.
    #[arg(long, env = "FORECASTLE_TRUSTED_PROXIES", value_delimiter = ',')]
    pub(crate) trusted_proxies: Vec<TrustedNetwork>,
    /// Requests a second of one user.
    #[arg(long, env = "FORECASTLE_RATE_USER_PER_S")]
    pub(crate) rate_user_per_s: Option<u32>,
    /// Requests a second from one client address.
    #[arg(long, env = "FORECASTLE_RATE_ADDRESS_PER_S")]
    pub(crate) rate_address_per_s: Option<u32>,
    /// Sign-ups and logins a second from one client address.
    #[arg(long, env = "FORECASTLE_RATE_LOGIN_PER_S")]
    pub(crate) rate_login_per_s: Option<u32>,
    /// The same three on this instance alone, while Redis does not answer: user.
    #[arg(long, env = "FORECASTLE_RATE_USER_FLOOR_PER_S")]
    pub(crate) rate_user_floor_per_s: Option<u32>,
    /// Client address.
    #[arg(long, env = "FORECASTLE_RATE_ADDRESS_FLOOR_PER_S")]
    pub(crate) rate_address_floor_per_s: Option<u32>,
    /// Sign-ups and logins.
    #[arg(long, env = "FORECASTLE_RATE_LOGIN_FLOOR_PER_S")]
    pub(crate) rate_login_floor_per_s: Option<u32>,
    /// Calculator requests computed at once.
    #[arg(long, env = "FORECASTLE_CALCULATIONS_MAX", default_value_t = 2)]
    pub(crate) calculations_max: usize,
    /// Password hashes computed at once.
    #[arg(long, env = "FORECASTLE_PASSWORD_HASHES_MAX", default_value_t = 2)]
    pub(crate) password_hashes_max: usize,
    /// Requests that may wait for one.
    #[arg(long, env = "FORECASTLE_PASSWORD_WAITERS_MAX", default_value_t = 64)]
    pub(crate) password_waiters_max: usize,
    /// Longest wait of one, then 503.
    #[arg(long, env = "FORECASTLE_PASSWORD_WAIT_MS", default_value_t = 5_000)]
    pub(crate) password_wait_ms: u64,
    /// Memory of one password hash, KiB.
    #[arg(long, env = "FORECASTLE_PASSWORD_MEMORY_KIB", default_value_t = 19_456)]
    pub(crate) password_memory_kib: u32,
    /// Passes of one password hash.
    #[arg(long, env = "FORECASTLE_PASSWORD_PASSES", default_value_t = 2)]
    pub(crate) password_passes: u32,
    /// Step of the launch: closed-beta (100 customers, by invitation), 1000, 5000, 50000 or 200000 customers;
    /// absent: whoever comes.
    #[arg(long, env = "FORECASTLE_LAUNCH_PHASE")]
    pub(crate) launch_phase: Option<LaunchPhase>,
    /// E-mail addresses that may sign up in the closed beta, separated by commas.
    #[arg(long, env = "FORECASTLE_INVITED_EMAILS", value_delimiter = ',', hide_env_values = true)]
    pub(crate) invited_emails: Vec<String>,
    /// Codes with which anybody may sign up in the closed beta, separated by commas.
    #[arg(long, env = "FORECASTLE_INVITATION_CODES", value_delimiter = ',', hide_env_values = true)]
    pub(crate) invitation_codes: Vec<String>,
    /// Most customers that may sign up, where that is fewer than the launch phase takes; unlimited if both are absent.
    #[arg(long, env = "FORECASTLE_CUSTOMER_CAP")]
    pub(crate) customer_cap: Option<u64>,
    /// The payment provider; without it, what charges is answered 503.
    #[arg(long, env = "FORECASTLE_PROVIDER_URL")]
    pub(crate) provider_url: Option<String>,
    /// Longest wait for one of its answers.
    #[arg(long, env = "FORECASTLE_PROVIDER_TIMEOUT_MS", default_value_t = 2_000)]
    pub(crate) provider_timeout_ms: u64,
    /// Longest time that one request asks it; less than --request-timeout-ms. What is not known then is answered 202.
    #[arg(long, env = "FORECASTLE_PROVIDER_PATIENCE_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) provider_patience_ms: u64,
    #[command(flatten)]
    pub(crate) terms: BillingTermsArgs,
    /// What the payment provider signs its events with: whsec_<base64>, or two of them separated by a comma
    /// while they are being exchanged; without it, events are answered 503.
    #[arg(long, env = "FORECASTLE_WEBHOOK_SECRETS", hide_env_values = true)]
    pub(crate) webhook_secrets: Option<String>,
    /// How far from this host's clock an event may have been signed.
    #[arg(long, env = "FORECASTLE_WEBHOOK_TOLERANCE_MS", default_value_t = 300_000)]
    pub(crate) webhook_tolerance_ms: u64,
    /// Largest body of an event.
    #[arg(long, env = "FORECASTLE_WEBHOOK_BYTES_MAX", default_value_t = 65_536)]
    pub(crate) webhook_bytes_max: usize,
    /// Streams of events of one user on this instance.
    #[arg(long, env = "FORECASTLE_STREAMS_USER_MAX", default_value_t = 8)]
    pub(crate) streams_user_max: usize,
    /// Streams of events of this instance.
    #[arg(long, env = "FORECASTLE_STREAMS_MAX", default_value_t = 1_000)]
    pub(crate) streams_max: usize,
    /// Silence on a stream after which a comment is sent.
    #[arg(long, env = "FORECASTLE_STREAM_HEARTBEAT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) stream_heartbeat_ms: u64,
    /// Longest time between two looks for events of a watched customer.
    #[arg(long, env = "FORECASTLE_STREAM_POLL_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) stream_poll_ms: u64,
    /// Time between two looks whether a stream's session stands. With the next one it bounds how long a
    /// revoked session is told anything: keep their sum under 1,000.
    #[arg(long, env = "FORECASTLE_STREAM_RECHECK_MS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) stream_recheck_ms: u64,
    /// Longest time in which that look must be answered, or the stream ends.
    #[arg(long, env = "FORECASTLE_STREAM_RECHECK_TIMEOUT_MS", default_value_t = 500)]
    pub(crate) stream_recheck_timeout_ms: u64,
    /// How long a reader may leave its stream full before it is cut off.
    #[arg(long, env = "FORECASTLE_STREAM_STALL_MS", default_value_t = 5_000)]
    pub(crate) stream_stall_ms: u64,
    /// Silence after which the listening connection is asked whether it still stands.
    #[arg(long, env = "FORECASTLE_LISTEN_KEEP_ALIVE_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) listen_keep_alive_ms: u64,
    /// How long events of forecasts are kept; the same as the workers are told.
    #[arg(long, env = "FORECASTLE_EVENTS_KEPT_S", default_value_t = 3_600)]
    pub(crate) events_kept_s: u64,
    /// Where product analytics are posted, plain http; absent: nowhere.
    #[arg(long, env = "FORECASTLE_ANALYTICS_URL", hide_env_values = true, requires = "analytics_key")]
    pub(crate) analytics_url: Option<String>,
    /// Key of the digests that stand for tenants and users there: 32 bytes, unpadded base64url.
    #[arg(long, env = "FORECASTLE_ANALYTICS_KEY", hide_env_values = true)]
    pub(crate) analytics_key: Option<String>,
    /// Most analytics events that may wait; further ones are dropped and counted.
    #[arg(long, env = "FORECASTLE_ANALYTICS_QUEUE_MAX", default_value_t = 1_000)]
    pub(crate) analytics_queue_max: usize,
    /// Most of them in one POST.
    #[arg(long, env = "FORECASTLE_ANALYTICS_BATCH_MAX", default_value_t = 100)]
    pub(crate) analytics_batch_max: usize,
    /// Longest time one of them waits for others.
    #[arg(long, env = "FORECASTLE_ANALYTICS_LINGER_MS", default_value_t = 1_000)]
    pub(crate) analytics_linger_ms: u64,
    /// Longest time for one POST.
    #[arg(long, env = "FORECASTLE_ANALYTICS_TIMEOUT_MS", default_value_t = 2_000)]
    pub(crate) analytics_timeout_ms: u64,
    /// Key of the tokens in mails, the same as the sender's: 32 bytes, unpadded base64url. Absent: no
    /// verification or reset mail is written.
    #[arg(long, env = "FORECASTLE_MAIL_TOKEN_KEY", hide_env_values = true)]
    pub(crate) mail_token_key: Option<String>,
    /// How long an address may be verified after the mail.
    #[arg(long, env = "FORECASTLE_MAIL_VERIFICATION_TTL_S", default_value_t = 259_200)]
    pub(crate) mail_verification_ttl_s: u64,
    /// How long a password may be reset after the mail.
    #[arg(long, env = "FORECASTLE_MAIL_RESET_TTL_S", default_value_t = 3_600)]
    pub(crate) mail_reset_ttl_s: u64,
    /// One mail of a kind goes to a user in each of these.
    #[arg(long, env = "FORECASTLE_MAIL_INTERVAL_S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) mail_interval_s: u64,
    /// Shortest time in which the request for a reset is answered, account or not.
    #[arg(long, env = "FORECASTLE_MAIL_RESET_FLOOR_MS", default_value_t = 250)]
    pub(crate) mail_reset_floor_ms: u64,
}

/// Reads a key of 32 bytes. Not done by the argument parser: its error would repeat what was given.
pub(crate) fn key_of_32_bytes(text: &str) -> anyhow::Result<[u8; 32]> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.context("a key is 32 bytes in base64url without padding")
}

/// How the connection to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SmtpTls {
    /// Not at all: for a relay on the same host or network.
    Off,
    /// STARTTLS, or mails wait.
    Required,
}

#[derive(Args)]
pub(crate) struct MailArgs {
    #[command(flatten)]
    pub(crate) db: DbArgs,
    /// Host name or address of the mail server.
    #[arg(long, env = "FORECASTLE_SMTP_HOST", default_value = "127.0.0.1")]
    pub(crate) smtp_host: String,
    /// Its port.
    #[arg(long, env = "FORECASTLE_SMTP_PORT", default_value_t = 25)]
    pub(crate) smtp_port: u16,
    /// Encryption of the connection [default: off on loopback, else required].
    #[arg(long, env = "FORECASTLE_SMTP_TLS")]
    pub(crate) smtp_tls: Option<SmtpTls>,
    /// User to log in as; needs a password.
    #[arg(long, env = "FORECASTLE_SMTP_USER", requires = "smtp_password")]
    pub(crate) smtp_user: Option<String>,
    /// Its password.
    #[arg(long, env = "FORECASTLE_SMTP_PASSWORD", hide_env_values = true)]
    pub(crate) smtp_password: Option<String>,
    /// Longest time for one mail, from connecting to the server's last answer.
    #[arg(long, env = "FORECASTLE_SMTP_TIMEOUT_MS", default_value_t = 10_000)]
    pub(crate) smtp_timeout_ms: u64,
    /// Sender of every mail.
    #[arg(long, env = "FORECASTLE_MAIL_FROM")]
    pub(crate) mail_from: String,
    /// Where people reach the product: first part of every link.
    #[arg(long, env = "FORECASTLE_PUBLIC_URL")]
    pub(crate) public_url: String,
    /// Key of the tokens in mails, the same as the API's: 32 bytes, unpadded base64url.
    #[arg(long, env = "FORECASTLE_MAIL_TOKEN_KEY", hide_env_values = true)]
    pub(crate) mail_token_key: String,
    /// Name of this process.
    #[arg(long, env = "FORECASTLE_INSTANCE", default_value = "mail")]
    pub(crate) instance: String,
    /// How long a claim of a mail holds; at least the mail server's time-out and five seconds.
    #[arg(long, env = "FORECASTLE_LEASE_MS", default_value_t = 30_000)]
    pub(crate) lease_ms: u64,
    /// Longest time between two looks at the outbox.
    #[arg(long, env = "FORECASTLE_POLL_MS", default_value_t = 1_000)]
    pub(crate) poll_ms: u64,
    /// Mails sent at once.
    #[arg(long, env = "FORECASTLE_CONCURRENCY", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) concurrency: u32,
    /// Age at which a mail that no server took is given up, s; one with a token ends with its token.
    #[arg(long, env = "FORECASTLE_MAIL_AGE_MAX_S", default_value_t = 345_600, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) mail_age_max_s: u64,
    /// Back-off after the first try; doubles with each.
    #[arg(long, env = "FORECASTLE_BACKOFF_BASE_MS", default_value_t = 1_000)]
    pub(crate) backoff_base_ms: u64,
    /// Longest back-off.
    #[arg(long, env = "FORECASTLE_BACKOFF_CAP_MS", default_value_t = 600_000)]
    pub(crate) backoff_cap_ms: u64,
    /// Send what is due, once, and end.
    #[arg(long, env = "FORECASTLE_ONCE")]
    pub(crate) once: bool,
    /// Where to answer GET /metrics; absent: nowhere.
    #[arg(long, env = "FORECASTLE_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

#[derive(Args)]
pub(crate) struct ComputeArgs {
    /// npv, pmt, pv, fv, nper, mirr, irr, percentile or amortisation; a forecast if absent.
    #[arg(long, env = "FORECASTLE_CALCULATOR")]
    pub(crate) calculator: Option<Calculator>,
    /// Threads of one forecast; the result does not depend on it.
    #[arg(long, env = "FORECASTLE_THREADS", default_value_t = 1)]
    pub(crate) threads: usize,
}

#[derive(Args)]
pub(crate) struct WorkArgs {
    #[command(flatten)]
    pub(crate) db: DbArgs,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
    /// Name of this process; first part of the worker's name on its claims.
    #[arg(long, env = "FORECASTLE_INSTANCE", default_value = "worker")]
    pub(crate) instance: String,
    /// Jobs worked on at once: while some are computed, others are claimed and written, several at a time.
    #[arg(long, env = "FORECASTLE_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) concurrency: u32,
    /// How long a claim holds without a heartbeat.
    #[arg(long, env = "FORECASTLE_LEASE_MS", default_value_t = 10_000)]
    pub(crate) lease_ms: u64,
    /// Time between heartbeats.
    #[arg(long, env = "FORECASTLE_HEARTBEAT_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) heartbeat_ms: u64,
    /// Shortest time between two signs of progress of one job.
    #[arg(long, env = "FORECASTLE_PROGRESS_MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) progress_ms: u64,
    /// Longest time between two looks at the queue.
    #[arg(long, env = "FORECASTLE_POLL_MS", default_value_t = 500)]
    pub(crate) poll_ms: u64,
    /// Silence after which the listening connection is asked whether it still stands.
    #[arg(long, env = "FORECASTLE_LISTEN_KEEP_ALIVE_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) listen_keep_alive_ms: u64,
    /// How long events of forecasts are kept for streams that come back.
    #[arg(long, env = "FORECASTLE_EVENTS_KEPT_S", default_value_t = 3_600)]
    pub(crate) events_kept_s: u64,
    /// How long after its first claim a job may be worked on.
    #[arg(long, env = "FORECASTLE_DEADLINE_MS", default_value_t = 300_000)]
    pub(crate) deadline_ms: u64,
    /// Back-off before the second attempt.
    #[arg(long, env = "FORECASTLE_BACKOFF_BASE_MS", default_value_t = 500)]
    pub(crate) backoff_base_ms: u64,
    /// Longest back-off.
    #[arg(long, env = "FORECASTLE_BACKOFF_CAP_MS", default_value_t = 30_000)]
    pub(crate) backoff_cap_ms: u64,
    /// Longest wait for running jobs after SIGTERM, before they go back to the queue.
    #[arg(long, env = "FORECASTLE_DRAIN_TIMEOUT_MS", default_value_t = 30_000)]
    pub(crate) drain_timeout_ms: u64,
    /// Where to answer GET /metrics; absent: nowhere.
    #[arg(long, env = "FORECASTLE_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

#[derive(Args)]
pub(crate) struct BillArgs {
    #[command(flatten)]
    pub(crate) db: DbArgs,
    /// The payment provider.
    #[arg(long, env = "FORECASTLE_PROVIDER_URL")]
    pub(crate) provider_url: String,
    /// Longest wait for one of its answers.
    #[arg(long, env = "FORECASTLE_PROVIDER_TIMEOUT_MS", default_value_t = 2_000)]
    pub(crate) provider_timeout_ms: u64,
    /// How long it may go without a clear answer, over all that a run asks, before the run asks nothing more; one
    /// payment may take a quarter of it.
    #[arg(long, env = "FORECASTLE_PROVIDER_SILENCE_MS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) provider_silence_ms: u64,
    /// Bring the books to this time (RFC 3339), once. Exit code 5 if something is left to be done.
    #[arg(long, env = "FORECASTLE_AS_OF")]
    pub(crate) as_of: Option<DateTime<Utc>>,
    /// Bring the books to now, once.
    #[arg(long, env = "FORECASTLE_ONCE")]
    pub(crate) once: bool,
    /// Otherwise: time between two runs.
    #[arg(long, env = "FORECASTLE_EVERY_MS", default_value_t = 60_000)]
    pub(crate) every_ms: u64,
    /// Tenants billed side by side.
    #[arg(long, env = "FORECASTLE_PARALLEL", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) parallel: u32,
    #[command(flatten)]
    pub(crate) terms: BillingTermsArgs,
    /// redis://host:port/, where cached plans are deleted when they change; absent: they last their time.
    #[arg(long, env = "FORECASTLE_REDIS_URL", hide_env_values = true)]
    pub(crate) redis_url: Option<String>,
    /// Longest wait for one of Redis's answers.
    #[arg(long, env = "FORECASTLE_REDIS_TIMEOUT_MS", default_value_t = 250)]
    pub(crate) redis_timeout_ms: u64,
    /// Where to answer GET /metrics; absent: nowhere.
    #[arg(long, env = "FORECASTLE_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Name of this process.
    #[arg(long, env = "FORECASTLE_INSTANCE", default_value = "biller")]
    pub(crate) instance: String,
}

#[derive(Args)]
pub(crate) struct AlertArgs {
    /// Processes to watch, name=http://host:port, separated by commas.
    #[arg(long, env = "FORECASTLE_TARGETS", value_delimiter = ',', required = true)]
    pub(crate) targets: Vec<Target>,
    /// Rules (TOML) that replace or add to the built-in ones.
    #[arg(long, env = "FORECASTLE_RULES")]
    pub(crate) rules: Option<PathBuf>,
    /// Print the rules in force, and end.
    #[arg(long, env = "FORECASTLE_PRINT_RULES")]
    pub(crate) print_rules: bool,
    /// Time between two looks at every process.
    #[arg(long, env = "FORECASTLE_EVERY_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub(crate) every_ms: u64,
    /// Longest look.
    #[arg(long, env = "FORECASTLE_SCRAPE_TIMEOUT_MS", default_value_t = 3_000)]
    pub(crate) scrape_timeout_ms: u64,
    /// Where alerts are posted, plain http.
    #[arg(long, env = "FORECASTLE_WEBHOOK_URL", hide_env_values = true)]
    pub(crate) webhook_url: String,
    /// Where critical alerts are posted that nobody acknowledged in time.
    #[arg(long, env = "FORECASTLE_ESCALATION_URL", hide_env_values = true)]
    pub(crate) escalation_url: Option<String>,
    /// That time, counted from the alert's firing.
    #[arg(long, env = "FORECASTLE_ESCALATE_AFTER_S", default_value_t = 300)]
    pub(crate) escalate_after_s: u64,
    /// Longest time for one POST.
    #[arg(long, env = "FORECASTLE_WEBHOOK_TIMEOUT_MS", default_value_t = 5_000)]
    pub(crate) webhook_timeout_ms: u64,
    /// Where to answer GET /alerts, POST /alerts/{id}/acknowledge, GET /metrics and GET /livez.
    #[arg(long, env = "FORECASTLE_LISTEN", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Name of this process.
    #[arg(long, env = "FORECASTLE_INSTANCE", default_value = "alert")]
    pub(crate) instance: String,
}

#[derive(Args)]
pub(crate) struct MigrateArgs {
    /// A superuser's address: roles that bypass row-level security are made here.
    #[arg(long, env = "FORECASTLE_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// Password to give to forecastle_app; unchanged if absent.
    #[arg(long, env = "FORECASTLE_APP_PASSWORD", hide_env_values = true)]
    pub(crate) app_password: Option<String>,
    /// Password to give to forecastle_read; unchanged if absent.
    #[arg(long, env = "FORECASTLE_READ_PASSWORD", hide_env_values = true)]
    pub(crate) read_password: Option<String>,
}

#[derive(Args)]
pub(crate) struct SeedArgs {
    /// The address of a role that bypasses row-level security and may write.
    #[arg(long, env = "FORECASTLE_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// How many customers: 60 % FREE, 30 % STARTER, 10 % PRO.
    #[arg(long, env = "FORECASTLE_CUSTOMERS")]
    pub(crate) customers: u32,
    /// Scenarios of each, within its plan's limit.
    #[arg(long, env = "FORECASTLE_SCENARIOS_EACH", default_value_t = 2)]
    pub(crate) scenarios_each: u32,
    /// Finished forecasts of each, within its plan's cap.
    #[arg(long, env = "FORECASTLE_FORECASTS_EACH", default_value_t = 3)]
    pub(crate) forecasts_each: u32,
    /// The oldest customer signed up this many months ago, the others since; their periods are billed and paid.
    #[arg(long, env = "FORECASTLE_MONTHS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=120))]
    pub(crate) months: u32,
    /// The present of the seeded customers, RFC 3339 [default: now].
    #[arg(long, env = "FORECASTLE_AT")]
    pub(crate) at: Option<DateTime<Utc>>,
    /// Of what is drawn: the same seed, present and numbers give the same rows, but for the password's salt.
    #[arg(long, env = "FORECASTLE_SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Connections that load side by side.
    #[arg(long, env = "FORECASTLE_PARALLEL", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) parallel: u32,
    /// First part of the e-mail addresses: <prefix>-<number>@seed.example.
    #[arg(long, env = "FORECASTLE_EMAIL_PREFIX", default_value = "owner")]
    pub(crate) email_prefix: String,
    /// The one password of all of them.
    #[arg(long, env = "FORECASTLE_PASSWORD", hide_env_values = true)]
    pub(crate) password: String,
    /// A scenario's input as JSON; a small built-in one if absent.
    #[arg(long, env = "FORECASTLE_SCENARIO_FILE")]
    pub(crate) scenario_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct FlagArgs {
    #[command(subcommand)]
    pub(crate) action: FlagAction,
}

/// What to do with a customer's switches.
#[derive(Subcommand)]
pub(crate) enum FlagAction {
    /// Switch a feature on or off for one customer, or back to what holds for everybody.
    Set(FlagSetArgs),
    /// Print a customer's own switches.
    List(FlagListArgs),
}

#[derive(Args)]
pub(crate) struct FlagSetArgs {
    /// The address of a role that bypasses row-level security and may write.
    #[arg(long, env = "FORECASTLE_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// The customer's tenant id.
    #[arg(long, env = "FORECASTLE_TENANT")]
    pub(crate) tenant: Uuid,
    /// The feature: uncertainty or overage.
    #[arg(long, env = "FORECASTLE_FLAG")]
    pub(crate) flag: Flag,
    /// on, off, or default: what holds for everybody.
    #[arg(long, env = "FORECASTLE_TO", value_parser = ["on", "off", "default"])]
    pub(crate) to: String,
}

#[derive(Args)]
pub(crate) struct FlagListArgs {
    /// The address of a role that bypasses row-level security.
    #[arg(long, env = "FORECASTLE_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// The customer's tenant id.
    #[arg(long, env = "FORECASTLE_TENANT")]
    pub(crate) tenant: Uuid,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_flag_has_its_environment_twin() {
        let root = Cli::command();
        root.clone().debug_assert();
        let mut flags = 0;
        let nested = root.get_subcommands().flat_map(clap::Command::get_subcommands);
        for command in root.get_subcommands().chain(nested) {
            for flag in command.get_arguments() {
                let Some(long) = flag.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
                let twin = format!("FORECASTLE_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(flag.get_env().and_then(|env| env.to_str()), Some(twin.as_str()), "{}", command.get_name());
                flags += 1;
            }
        }
        assert!(flags > 40, "{flags}");
    }

    #[test]
    fn a_secret_is_never_shown_in_help() {
        for command in Cli::command().get_subcommands() {
            for flag in command.get_arguments() {
                let secret = [
                    "database-url",
                    "replica-url",
                    "redis-url",
                    "signing-keys",
                    "invitation-codes",
                    "invited-emails",
                    "password",
                    "app-password",
                    "read-password",
                    "webhook-secrets",
                    "mail-token-key",
                    "smtp-password",
                    "error-dsn",
                    "analytics-url",
                    "analytics-key",
                    "webhook-url",
                    "escalation-url",
                ];
                if flag.get_long().is_some_and(|long| secret.contains(&long)) {
                    assert!(flag.is_hide_env_values_set(), "{} {:?}", command.get_name(), flag.get_long());
                }
            }
        }
    }
}
