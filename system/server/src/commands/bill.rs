//! `forecastle bill`

use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use forecastle_billing::{BillingRun, Provider};
use forecastle_store::{Cache, CacheOptions, Db};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli::BillArgs;
use crate::commands::announce;
use crate::exit_code::ExitCode;
use crate::{metrics_listener, shutdown};

/// Connections beyond one for each tenant at work.
const POOL_BEYOND_TENANTS: u32 = 2;

/// Time between two looks at how long ago the last full run was.
const AGE_EVERY: Duration = Duration::from_secs(1);

/// Bills once or for ever; after SIGTERM the run under way is let go, which is safe anywhere.
pub(crate) async fn run(args: BillArgs) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::requested();
    let run = open(&args)?;
    if let Some(listen) = args.metrics_listen {
        let address = metrics_listener::start(listen).await?;
        announce(&json!({ "event": "ready", "instance": args.instance, "metrics": address.to_string() }))?;
    }
    let (full_run, last_full_run) = watch::channel(Instant::now());
    tokio::spawn(show_age(last_full_run));
    let once = args.once || args.as_of.is_some();
    let billing = async {
        loop {
            match run.to(args.as_of.unwrap_or_else(Utc::now)).await {
                Ok(summary) => {
                    if summary.incomplete == 0 {
                        full_run.send_replace(Instant::now());
                    }
                    announce(&serde_json::to_value(summary)?)?;
                    if once {
                        let done = summary.is_complete();
                        return Ok(if done { ExitCode::Done } else { ExitCode::BillingIncomplete });
                    }
                }
                Err(error) if once => return Err(anyhow::Error::new(error).context("bill")),
                Err(error) => tracing::warn!(error = %error, "bill"),
            }
            tokio::time::sleep(Duration::from_millis(args.every_ms)).await;
        }
    };
    tokio::select! {
        outcome = billing => outcome,
        () = shutdown => Ok(ExitCode::Done),
    }
}

/// For as long as there is a biller: since its start, or the last run that reached every customer.
async fn show_age(last_full_run: watch::Receiver<Instant>) {
    while last_full_run.has_changed().is_ok() {
        let age = last_full_run.borrow().elapsed();
        metrics::gauge!("forecastle_billing_full_run_age_seconds").set(age.as_secs_f64());
        tokio::time::sleep(AGE_EVERY).await;
    }
}

fn open(args: &BillArgs) -> anyhow::Result<BillingRun> {
    let db =
        Db::open(args.db.options(&args.instance, args.parallel + POOL_BEYOND_TENANTS)).context("open database pool")?;
    let provider = Provider::new(&args.provider_url, Duration::from_millis(args.provider_timeout_ms))
        .context("open payment provider")?;
    let cache = match &args.redis_url {
        Some(redis_url) => {
            let timeout = Duration::from_millis(args.redis_timeout_ms);
            let options = CacheOptions { redis_url: redis_url.clone(), timeout };
            Some(Cache::open_for_writing(&options, &db).context("open cache")?)
        }
        None => None,
    };
    let silence_max = Duration::from_millis(args.provider_silence_ms);
    Ok(BillingRun { db, provider, terms: args.terms.terms(), silence_max, at_once: args.parallel as usize, cache })
}
