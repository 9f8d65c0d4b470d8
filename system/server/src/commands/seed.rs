//! `forecastle seed`

use anyhow::{Context as _, bail};
use forecastle_api::passwords::Passwords;
use forecastle_store::seed::{SeedPlan, seed};
use serde_json::json;

use crate::cli::SeedArgs;
use crate::commands::announce;
use crate::exit_code::ExitCode;

/// Same cost as the interface's default, so that a seeded login costs what any login costs.
const PASSWORD_MEMORY_KIB: u32 = 19 * 1024;
const PASSWORD_PASSES: u32 = 2;

/// Loads the customers and prints how much was loaded.
pub(crate) async fn run(args: SeedArgs) -> anyhow::Result<ExitCode> {
    let input = match &args.scenario_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).context("read scenario file")?;
            serde_json::from_str(&text).context("parse scenario file")?
        }
        None => built_in_scenario(),
    };
    let Ok(forecast) = forecastle_forecast::run(&input, 1, &|| false) else {
        bail!("the scenario has no forecast: its input is out of bounds");
    };
    let hasher = Passwords::new(1, 1, std::time::Duration::from_secs(60), PASSWORD_MEMORY_KIB, PASSWORD_PASSES);
    let Ok(password_hash) = hasher.hash(args.password).await else {
        bail!("hash the password");
    };
    let plan = SeedPlan {
        customers: args.customers,
        scenarios_each: args.scenarios_each,
        forecasts_each: args.forecasts_each,
        months: args.months,
        email_prefix: args.email_prefix.to_ascii_lowercase(),
        password_hash,
        input,
        engine_version: forecastle_forecast::ENGINE_VERSION.to_owned(),
        result: forecast.result,
        result_hash: forecast.result_hash,
        at: args.at.unwrap_or_else(chrono::Utc::now),
        seed: args.seed,
        connections: args.parallel,
    };
    let summary = seed(&args.database_url, &plan).await.context("seed")?;
    announce(&serde_json::to_value(summary)?)?;
    Ok(ExitCode::Done)
}

fn built_in_scenario() -> serde_json::Value {
    json!({
        "currency": "EUR",
        "start_month": "2026-01",
        "horizon_months": 24,
        "opening_cash": "50000",
        "discount_rate_annual": "0.08",
        "tax_rate": "0.25",
        "revenue": [{
            "name": "Subscriptions",
            "opening_units": "120",
            "adds_per_month": "14",
            "adds_growth_monthly": "0.02",
            "churn_monthly": "0.03",
            "price": "49",
            "price_growth_annual": "0.05",
            "collection_lag_months": 1
        }],
        "costs": [
            { "kind": "fixed", "name": "Office", "amount": "1800", "growth_annual": "0.03" },
            { "kind": "percent_of_revenue", "name": "Hosting", "rate": "0.12" },
            { "kind": "headcount", "role": "Engineer", "annual_salary": "54000", "burden_rate": "0.22",
              "start_date": "2026-02-16" },
            { "kind": "one_off", "name": "Launch", "amount": "5000", "month": "2026-03" }
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_scenario_has_a_forecast() {
        let outcome = forecastle_forecast::run(&built_in_scenario(), 1, &|| false);
        assert_eq!(outcome.map(|forecast| forecast.result_hash.len()), Ok(64));
    }
}
