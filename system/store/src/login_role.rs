//! Whether the login a process was given is one that row-level security binds. One that is not would see
//! every tenant's rows wherever a query forgets to say whose it wants.

use std::time::Duration;

use sqlx::Connection as _;

use crate::error::StoreError;
use crate::pool::connect_once;

/// Pause between two tries to ask a server that does not answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Roles whose rights the login has, itself included, that no policy binds; and tables of ours that it
/// owns or whose owner it can become.
const RIGHTS: &str = "SELECT
    EXISTS (SELECT 1 FROM pg_catalog.pg_roles r
            WHERE (r.rolsuper OR r.rolbypassrls) AND pg_catalog.pg_has_role(r.oid, 'MEMBER')),
    EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p') AND pg_catalog.pg_has_role(c.relowner, 'MEMBER'))";

/// Asks over a connection of its own, which it closes.
///
/// # Errors
/// `UnboundRole` if policies do not bind the login; else as the server says.
pub async fn check(database_url: &str) -> Result<(), StoreError> {
    let mut connection = connect_once(database_url).await?;
    let (bypasses, owns): (bool, bool) = sqlx::query_as(RIGHTS).fetch_one(&mut connection).await?;
    let _ = connection.close().await;
    match (bypasses, owns) {
        (true, _) => Err(StoreError::UnboundRole { why: "bypasses row-level security" }),
        (_, true) => Err(StoreError::UnboundRole { why: "owns the tables" }),
        _ => Ok(()),
    }
}

/// Resolves only where policies do not bind the login, and asks until the server has said.
pub async fn refusal(database_url: &str) -> StoreError {
    loop {
        match check(database_url).await {
            Ok(()) => return std::future::pending().await,
            Err(refusal @ StoreError::UnboundRole { .. }) => return refusal,
            Err(_) => tokio::time::sleep(ASK_AGAIN_AFTER).await,
        }
    }
}
