//! Telling people: one task for each webhook, which goes on until the webhook has taken what there is to tell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Client, Url};
use tokio::sync::Notify;

use crate::lifecycle::{Alert, Notice};
use crate::outbox::Outbox;

/// Pause after the first failed try; doubles with each in a row.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Where notices go.
#[derive(Clone)]
pub struct Webhooks {
    /// Every notice.
    pub first: Url,
    /// Critical alerts that nobody acknowledged in time; `None`: nobody else.
    pub second: Option<Url>,
    /// Longest time for one POST.
    pub timeout: Duration,
}

/// One webhook's notices, and whoever waits for one.
#[derive(Default)]
struct Desk {
    outbox: Mutex<Outbox>,
    arrived: Notify,
}

impl Desk {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Deliverer {
    first: Arc<Desk>,
    second: Option<Arc<Desk>>,
}

impl Deliverer {
    pub(crate) fn start(webhooks: &Webhooks, client: &Client) -> Self {
        let open = |name, url: &Url| {
            let desk = Arc::<Desk>::default();
            tokio::spawn(deliver(name, url.clone(), client.clone(), Arc::clone(&desk)));
            desk
        };
        Self { first: open("first", &webhooks.first), second: webhooks.second.as_ref().map(|url| open("second", url)) }
    }

    /// Never waits.
    pub(crate) fn give(&self, notice: Notice) {
        let (desk, alert) = match notice {
            Notice::Tell(alert) => (Some(&self.first), alert),
            Notice::Escalate(alert) => (self.second.as_ref(), alert),
        };
        tracing::info!(kind = %alert.alert, state = alert.state, "alert");
        if let (Some(second), "resolved") = (&self.second, alert.state) {
            // Nobody has to be called for what is over.
            second.outbox().withdraw(&alert.id);
        }
        if let Some(desk) = desk {
            desk.outbox().put(alert);
            desk.arrived.notify_one();
        }
    }
}

async fn deliver(webhook: &'static str, url: Url, client: Client, desk: Arc<Desk>) {
    let mut pause = PAUSE;
    loop {
        let next: Option<(u64, Alert)> = desk.outbox().next();
        let Some((number, alert)) = next else {
            desk.arrived.notified().await;
            continue;
        };
        let sent = client.post(url.clone()).json(&alert).send().await;
        if sent.is_ok_and(|answer| answer.status().is_success()) {
            desk.outbox().told(number, &alert.id);
            pause = PAUSE;
            metrics::counter!("forecastle_alert_notices_total", "webhook" => webhook).increment(1);
        } else {
            metrics::counter!("forecastle_alert_tries_failed_total", "webhook" => webhook).increment(1);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        metrics::gauge!("forecastle_alert_notices_waiting", "webhook" => webhook).set(desk.outbox().len() as f64);
    }
}
