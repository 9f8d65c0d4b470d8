//! `forecastle bill`

use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use forecastle_billing::{Provider, run_to};
use forecastle_store::Db;

use crate::cli::BillArgs;
use crate::commands::announce;
use crate::exit_code::ExitCode;
use crate::shutdown;

/// Connections beyond one for each tenant at work.
const POOL_BEYOND_TENANTS: u32 = 2;

/// Bills once or for ever; after SIGTERM the run under way is let go, which is safe anywhere.
pub(crate) async fn run(args: BillArgs) -> anyhow::Result<ExitCode> {
    let db =
        Db::open(args.db.options(&args.instance, args.parallel + POOL_BEYOND_TENANTS)).context("open database pool")?;
    let provider = Provider::new(&args.provider_url, Duration::from_millis(args.provider_timeout_ms))
        .context("open payment provider")?;
    let once = args.once || args.as_of.is_some();
    let billing = async {
        loop {
            let as_of = args.as_of.unwrap_or_else(Utc::now);
            match run_to(&db, &provider, as_of, args.parallel as usize).await {
                Ok(summary) => {
                    if summary.healed > 0 {
                        tracing::error!(healed = summary.healed, "missing billing periods found and drafted");
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
        () = shutdown::requested() => Ok(ExitCode::Done),
    }
}
