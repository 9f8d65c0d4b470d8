//! `forecastle mail`

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use forecastle_mail::{SenderConfig, SmtpOptions, Tls, Wording};
use forecastle_store::mail_tokens::MailTokenKey;
use serde_json::json;

use crate::cli::{MailArgs, SmtpTls, key_of_32_bytes};
use crate::commands::announce;
use crate::exit_code::ExitCode;
use crate::{metrics_listener, shutdown};

/// Connections beyond one for each mail: the claim and the backlog's count.
const POOL_BEYOND_MAILS: u32 = 2;

/// Sends mails until SIGTERM.
pub(crate) async fn run(args: MailArgs) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::requested();
    let metrics = match args.metrics_listen {
        Some(listen) => Some(metrics_listener::start(listen).await?),
        None => None,
    };
    let config = config(&args)?;
    announce(&json!({
        "event": "ready",
        "instance": args.instance,
        "metrics": metrics.map(|address| address.to_string()),
    }))?;
    forecastle_mail::run(config, shutdown).await.context("send mails")?;
    Ok(ExitCode::Done)
}

fn config(args: &MailArgs) -> anyhow::Result<SenderConfig> {
    let is_loopback =
        args.smtp_host == "localhost" || args.smtp_host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let tls = match args.smtp_tls {
        Some(SmtpTls::Off) => Tls::Off,
        Some(SmtpTls::Required) => Tls::Required,
        None if is_loopback => Tls::Off,
        None => Tls::Required,
    };
    Ok(SenderConfig {
        db: args.db.options(&args.instance, args.concurrency + POOL_BEYOND_MAILS),
        smtp: SmtpOptions {
            host: args.smtp_host.clone(),
            port: args.smtp_port,
            tls,
            credentials: args.smtp_user.clone().zip(args.smtp_password.clone()),
            timeout: Duration::from_millis(args.smtp_timeout_ms),
        },
        from: args.mail_from.clone(),
        wording: Wording { public_url: args.public_url.trim_end_matches('/').to_owned() },
        token_key: MailTokenKey::new(key_of_32_bytes(&args.mail_token_key).context("read mail token key")?),
        lease: Duration::from_millis(args.lease_ms),
        poll: Duration::from_millis(args.poll_ms),
        concurrency: args.concurrency,
        age_max: Duration::from_secs(args.mail_age_max_s),
        backoff_base: Duration::from_millis(args.backoff_base_ms),
        backoff_cap: Duration::from_millis(args.backoff_cap_ms),
        once: args.once,
    })
}
