//! What each role may do, on every operation of the document.

use forecastle_domain::Role;
use sqlx::Connection as _;

use crate::fixtures::{Instance, config, protected_operations, text};
use crate::servers::Servers;

#[tokio::test]
async fn every_operation_refuses_the_roles_without_its_right_and_no_other() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let mut admin = sqlx::PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    for role in Role::ALL {
        api.sign_up(role.as_str(), "PRO").await;
        let query = sqlx::query("UPDATE app.users SET role = $1 WHERE email = $1 || '@example.com'");
        assert_eq!(query.bind(role.as_str()).execute(&mut admin).await.unwrap().rows_affected(), 1);
        let mut refused = 0;
        for operation in protected_operations() {
            // One of them ends the session it is asked in.
            let session = api.log_in(role.as_str()).await;
            let (status, code) =
                api.status(operation.method.clone(), &operation.path, text(&session, "access_token")).await;
            let is_refused = (status, code.as_str()) == (403, "role_forbidden");
            assert_eq!(is_refused, !role.may(operation.right), "{role}: {operation:?}: {status} {code}");
            assert!(is_refused || ![401, 403].contains(&status) && status < 500, "{role}: {operation:?}: {status}");
            refused += usize::from(is_refused);
        }
        assert_eq!(refused > 0, *role != Role::Owner, "{role}: {refused}");
    }
}
