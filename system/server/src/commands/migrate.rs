//! `forecastle migrate`

use anyhow::Context as _;
use forecastle_store::migrate::{RolePasswords, migrate};
use serde_json::json;

use crate::cli::MigrateArgs;
use crate::commands::announce;
use crate::exit_code::ExitCode;

/// Migrates and prints what was done.
pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let passwords = RolePasswords { app: args.app_password, read: args.read_password };
    let summary = migrate(&args.database_url, &passwords).await.context("migrate")?;
    announce(&json!({ "event": "migrated", "version": summary.version, "applied": summary.applied }))?;
    Ok(ExitCode::Done)
}
