//! `forecastle alert`

use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use forecastle_alert::{BUILT_IN, Rules, Watch, WatchConfig, Webhooks, watch};
use reqwest::Url;
use serde_json::json;

use crate::cli::AlertArgs;
use crate::commands::announce;
use crate::exit_code::ExitCode;
use crate::{metrics_listener, shutdown};

/// Watches until SIGTERM.
pub(crate) async fn run(args: AlertArgs) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::requested();
    let overrides = match &args.rules {
        Some(path) => Some(std::fs::read_to_string(path).context("read file of rules")?),
        None => None,
    };
    let rules = Rules::read(overrides.as_deref()).context("read rules")?;
    if args.print_rules {
        println!("{BUILT_IN}{}", overrides.unwrap_or_default());
        return Ok(ExitCode::Done);
    }
    let second = args.escalation_url.as_deref().map(webhook).transpose()?;
    let config = WatchConfig {
        targets: args.targets.clone(),
        rules,
        every: Duration::from_millis(args.every_ms),
        scrape_timeout: Duration::from_millis(args.scrape_timeout_ms),
        webhooks: Webhooks {
            first: webhook(&args.webhook_url)?,
            second,
            timeout: Duration::from_millis(args.webhook_timeout_ms),
        },
        escalate_after: Duration::from_secs(args.escalate_after_s),
    };
    // The recorder first: what the watch counts before it would be lost.
    let metrics = metrics_listener::recorder()?;
    let routes = Router::new()
        .route("/alerts", get(firing))
        .route("/alerts/{id}/acknowledge", post(acknowledge))
        .with_state(watch(config).context("start the watch")?);
    let address = metrics_listener::start_with(args.listen, metrics, routes).await?;
    announce(&json!({ "event": "ready", "instance": args.instance, "metrics": address.to_string() }))?;
    shutdown.await;
    Ok(ExitCode::Done)
}

/// Not repeated in an error: it may hold a key.
fn webhook(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).ok().context("a webhook's address does not read")?;
    ensure!(url.scheme() == "http", "a webhook is spoken to in plain http; put a relay beside this process for https");
    Ok(url)
}

async fn firing(State(watch): State<Watch>) -> axum::Json<serde_json::Value> {
    axum::Json(json!({ "items": watch.firing() }))
}

async fn acknowledge(State(watch): State<Watch>, Path(id): Path<String>) -> StatusCode {
    if watch.acknowledge(&id) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}
