//! A bed for everything about money: an instance with a payment provider that keeps a book, a biller
//! beside it, and events signed as the provider signs them.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forecastle_api::ApiConfig;
use forecastle_billing::{BillingRun, BillingTerms, Provider, RunSummary, WebhookSecrets};
use forecastle_store::{Db, DbOptions};
use forecastle_testbed::provider::{self, Book};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::fixtures::{Answer, Instance, config, text};
use crate::servers::Servers;

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub(crate) struct PayBed {
    pub(crate) api: Instance,
    pub(crate) book: Arc<Book>,
    pub(crate) provider: Provider,
    pub(crate) biller: Db,
    pub(crate) admin: PgConnection,
    pub(crate) config: ApiConfig,
    pub(crate) servers: Servers,
}

/// A signed-up owner.
pub(crate) struct Owner {
    pub(crate) token: String,
    pub(crate) tenant: String,
}

/// An event before it is signed.
pub(crate) struct Event<'a> {
    pub(crate) id: &'a str,
    pub(crate) at: DateTime<Utc>,
    pub(crate) secret: &'a str,
    pub(crate) body: Value,
}

impl<'a> Event<'a> {
    pub(crate) fn now(id: &'a str, body: Value) -> Self {
        Self { id, at: Utc::now(), secret: SECRET, body }
    }
}

/// The event that a charge of the book leads to.
pub(crate) fn charge_event(kind: &str, charge: &Value) -> Value {
    json!({ "type": kind, "created_at": Utc::now(), "data": charge })
}

impl PayBed {
    pub(crate) async fn start() -> Self {
        let servers = Servers::start().await;
        let (url, book) = provider::start().await;
        let provider = Provider::new(&url, Duration::from_millis(1500)).unwrap();
        let mut config = config(&servers);
        config.provider = Some(provider.clone());
        config.webhook_secrets = Some(WebhookSecrets::parse(SECRET).unwrap());
        let options =
            DbOptions { max_connections: 6, ..DbOptions::new(servers.database_url("forecastle_app"), "biller") };
        let biller = Db::open(options).unwrap();
        let admin = PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
        let api = Instance::start(config.clone()).await;
        Self { api, book, provider, biller, admin, config, servers }
    }

    pub(crate) async fn owner(&self, name: &str, plan: &str) -> Owner {
        let session = self.api.sign_up(name, plan).await;
        Owner { token: text(&session, "access_token").to_owned(), tenant: text(&session, "tenant_id").to_owned() }
    }

    pub(crate) async fn bill(&self, as_of: DateTime<Utc>) -> RunSummary {
        let (db, provider) = (self.biller.clone(), self.provider.clone());
        let run = BillingRun {
            db,
            provider,
            terms: BillingTerms::default(),
            at_once: 2,
            cache: None,
            silence_max: Duration::from_secs(20),
        };
        run.to(as_of).await.unwrap()
    }

    pub(crate) async fn count(&mut self, statement: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(&mut self.admin).await.unwrap()
    }

    pub(crate) async fn send(&self, event: &Event<'_>) -> Answer {
        send_to(&self.api, event).await
    }

    /// The ledger balances, and what came in is what the provider took and did not give back.
    pub(crate) async fn assert_square(&mut self) {
        let open = "SELECT coalesce(sum(debit_minor - credit_minor), 0)::bigint FROM app.ledger_entries";
        assert_eq!(self.count(open).await, 0);
        let received = "SELECT coalesce(sum(debit_minor), 0)::bigint FROM app.ledger_entries WHERE account = 'cash'";
        assert_eq!(self.count(received).await, self.book.total_minor());
        let paid = "SELECT count(*) FROM app.payments WHERE state = 'succeeded'";
        assert_eq!(self.count(paid).await, self.book.count());
    }
}

pub(crate) async fn send_to(api: &Instance, event: &Event<'_>) -> Answer {
    let body = event.body.to_string();
    let signature = WebhookSecrets::parse(event.secret).unwrap().sign(event.id, event.at.timestamp(), body.as_bytes());
    let timestamp = event.at.timestamp().to_string();
    let headers =
        [("webhook-id", event.id), ("webhook-timestamp", &timestamp), ("webhook-signature", signature.as_str())];
    api.send(Method::POST, "/v1/webhooks/payments", None, &headers, Some(&event.body)).await
}
