//! `forecastle serve`

use std::time::Duration;

use anyhow::Context as _;
use forecastle_api::{ApiConfig, Invited, KeySet, Limits, MailConfig, Rate, StreamLimits};
use forecastle_billing::{Provider, WebhookSecrets};
use forecastle_store::login_role;
use forecastle_store::mail_tokens::MailTokenKey;
use forecastle_telemetry::{Analytics, AnalyticsOptions};
use serde_json::json;

use crate::cli::{ServeArgs, key_of_32_bytes};
use crate::commands::announce;
use crate::exit_code::ExitCode;
use crate::{key_file, shutdown};

const POOL_MAX: u32 = 50;

/// Serves until SIGTERM.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::requested();
    let listener = tokio::net::TcpListener::bind(args.listen).await.context("bind listener")?;
    let address = listener.local_addr().context("read listener's address")?;
    let config = config(&args)?;
    if let Some(path) = args.signing_keys_file.clone() {
        let every = Duration::from_millis(args.signing_keys_check_ms);
        tokio::spawn(key_file::follow(path, config.keys.clone(), every));
    }
    announce(&json!({ "event": "listening", "address": address.to_string() }))?;
    let database_url = config.db.database_url.clone();
    tokio::select! {
        outcome = forecastle_api::serve(config, listener, shutdown) => outcome.context("serve")?,
        refusal = login_role::refusal(&database_url) => return Err(refusal).context("serve"),
    }
    Ok(ExitCode::Done)
}

fn config(args: &ServeArgs) -> anyhow::Result<ApiConfig> {
    let keys = match (&args.signing_keys_file, &args.signing_keys) {
        (Some(path), _) => key_file::read(path)?,
        (None, keys) => KeySet::parse(keys.as_deref().unwrap_or_default()).context("read signing keys")?.into(),
    };
    let mut config = ApiConfig::new(args.db.options(&args.instance, POOL_MAX), args.redis.options(), keys);
    config.replicas = args.replicas.options().map_err(anyhow::Error::msg).context("read --replica-url")?;
    config.customer_cap = args.customer_cap;
    config.launch_phase = args.launch_phase;
    config.invited =
        Invited::new(&args.invited_emails, &args.invitation_codes).context("read the list of the invited")?;
    config.access_ttl = Duration::from_secs(args.access_ttl_s);
    config.refresh_ttl = Duration::from_secs(args.refresh_ttl_s);
    config.session_ttl = Duration::from_secs(args.session_ttl_s);
    config.refresh_grace = Duration::from_millis(args.refresh_grace_ms);
    config.session_cache = Duration::from_millis(args.session_cache_ms);
    config.cache_ttl = Duration::from_millis(args.cache_ttl_ms);
    config.cache_trust = Duration::from_millis(args.cache_trust_ms);
    config.entitlement_cache = Duration::from_millis(args.entitlement_cache_ms);
    config.idempotency_ttl = Duration::from_secs(args.idempotency_ttl_s);
    config.request_timeout = Duration::from_millis(args.request_timeout_ms);
    config.gauges_every = Duration::from_millis(args.gauges_every_ms);
    config.drain_delay = Duration::from_millis(args.drain_delay_ms);
    config.drain_timeout = Duration::from_millis(args.drain_timeout_ms);
    config.connections = args.connections.limits();
    config.header_bytes_max = args.connections.header_bytes_max();
    config.body_bytes_max = args.body_bytes_max;
    config.calculations_max = args.calculations_max;
    config.password_hashes_max = args.password_hashes_max;
    config.password_waiters_max = args.password_waiters_max;
    config.password_wait = Duration::from_millis(args.password_wait_ms);
    config.password_memory_kib = args.password_memory_kib;
    config.password_passes = args.password_passes;
    config.trusted_proxies.clone_from(&args.trusted_proxies);
    config.limits = limits(args);
    let provider_timeout = Duration::from_millis(args.provider_timeout_ms);
    let provider = args.provider_url.as_ref().map(|url| Provider::new(url, provider_timeout));
    config.provider = provider.transpose().context("open payment provider")?;
    config.provider_patience = Duration::from_millis(args.provider_patience_ms);
    config.billing_terms = args.terms.terms();
    let secrets = args.webhook_secrets.as_deref().map(WebhookSecrets::parse);
    config.webhook_secrets = secrets.transpose().context("read webhook secrets")?;
    config.webhook_tolerance = Duration::from_millis(args.webhook_tolerance_ms);
    config.webhook_bytes_max = args.webhook_bytes_max;
    config.streams = StreamLimits {
        of_user_max: args.streams_user_max,
        max: args.streams_max,
        heartbeat: Duration::from_millis(args.stream_heartbeat_ms),
        poll: Duration::from_millis(args.stream_poll_ms),
        recheck: Duration::from_millis(args.stream_recheck_ms),
        recheck_timeout: Duration::from_millis(args.stream_recheck_timeout_ms),
        stall: Duration::from_millis(args.stream_stall_ms),
        listen_keep_alive: Duration::from_millis(args.listen_keep_alive_ms),
        events_kept: Duration::from_secs(args.events_kept_s),
    };
    config.mail = mail(args)?;
    config.analytics = analytics(args)?;
    Ok(config)
}

/// Starts the task that sends, so a runtime is needed.
fn analytics(args: &ServeArgs) -> anyhow::Result<Option<Analytics>> {
    let (Some(url), Some(key)) = (&args.analytics_url, &args.analytics_key) else { return Ok(None) };
    let options = AnalyticsOptions {
        url: url.clone(),
        key: key_of_32_bytes(key).context("read analytics key")?,
        queue_max: args.analytics_queue_max,
        batch_max: args.analytics_batch_max,
        linger: Duration::from_millis(args.analytics_linger_ms),
        timeout: Duration::from_millis(args.analytics_timeout_ms),
    };
    Analytics::start(options).map(Some).context("open analytics sink")
}

fn mail(args: &ServeArgs) -> anyhow::Result<Option<MailConfig>> {
    let Some(key) = &args.mail_token_key else {
        tracing::warn!("no key for mail tokens: no verification or reset mail will be written");
        return Ok(None);
    };
    let key = key_of_32_bytes(key).context("read mail token key")?;
    let mut mail = MailConfig::new(MailTokenKey::new(key));
    mail.verification_ttl = Duration::from_secs(args.mail_verification_ttl_s);
    mail.reset_ttl = Duration::from_secs(args.mail_reset_ttl_s);
    mail.interval = Duration::from_secs(args.mail_interval_s);
    mail.reset_answer_floor = Duration::from_millis(args.mail_reset_floor_ms);
    Ok(Some(mail))
}

fn limits(args: &ServeArgs) -> Limits {
    let default = Limits::default();
    let rate = |wanted: Option<u32>, default: Rate| wanted.map_or(default, Rate::per_second);
    Limits {
        user: rate(args.rate_user_per_s, default.user),
        address: rate(args.rate_address_per_s, default.address),
        credentials: rate(args.rate_login_per_s, default.credentials),
        user_floor: rate(args.rate_user_floor_per_s, default.user_floor),
        address_floor: rate(args.rate_address_floor_per_s, default.address_floor),
        credentials_floor: rate(args.rate_login_floor_per_s, default.credentials_floor),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    const KEY: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    fn terms_of(flags: &[&str]) -> forecastle_billing::BillingTerms {
        let needed = ["forecastle", "serve", "--database-url", "postgres://forecastle_app@localhost/x"];
        let more = ["--redis-url", "redis://localhost/", "--signing-keys", KEY];
        let cli = Cli::try_parse_from(needed.iter().chain(&more).chain(flags)).unwrap();
        let Command::Serve(args) = cli.command else { panic!("serve") };
        config(&args).unwrap().billing_terms
    }

    #[tokio::test]
    async fn the_api_dates_dunning_by_the_billers_own_settings() {
        assert_eq!(terms_of(&[]), forecastle_billing::BillingTerms::default());
        let told = terms_of(&["--issue-after-s", "7", "--retry-after-s", "1,2,3", "--give-up-after-s", "9"]);
        assert_eq!((told.issue_after, told.give_up_after), (TimeDelta::seconds(7), TimeDelta::seconds(9)));
        assert_eq!(told.retry_after, [1, 2, 3].map(TimeDelta::seconds));
    }
}
