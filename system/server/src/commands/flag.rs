//! `forecastle flag`

use anyhow::{Context as _, bail};
use forecastle_domain::TenantId;
use forecastle_store::{StoreError, flags};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::cli::{FlagAction, FlagArgs};
use crate::commands::announce;
use crate::exit_code::ExitCode;

/// Sets a switch or prints those that are set. What is set is logged: who ran it stands in the shell's record.
pub(crate) async fn run(args: FlagArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        FlagAction::Set(args) => {
            let enabled = match args.to.as_str() {
                "on" => Some(true),
                "off" => Some(false),
                _ => None,
            };
            known(flags::set(&args.database_url, TenantId::from_uuid(args.tenant), args.flag, enabled).await)?
                .context("set flag")?;
            tracing::info!(tenant_id = %args.tenant, flag = %args.flag, state = %args.to, "flag set");
            announce(&json!({ "event": "flag_set", "tenant": args.tenant, "flag": args.flag, "to": args.to }))?;
        }
        FlagAction::List(args) => {
            let found = known(flags::list(&args.database_url, TenantId::from_uuid(args.tenant)).await)?;
            announce(&listed(args.tenant, found.context("list flags")?))?;
        }
    }
    Ok(ExitCode::Done)
}

/// An id that is nobody's is the operator's mistake, and is told so.
fn known<T>(answer: Result<T, StoreError>) -> anyhow::Result<Result<T, StoreError>> {
    if answer.as_ref().is_err_and(|error| *error == StoreError::NotFound) {
        bail!("there is no such tenant");
    }
    Ok(answer)
}

fn listed(tenant: Uuid, switches: Vec<(String, bool)>) -> Value {
    let switches: Map<String, Value> = switches.into_iter().map(|(flag, on)| (flag, on.into())).collect();
    json!({ "event": "flags", "tenant": tenant, "flags": switches })
}
