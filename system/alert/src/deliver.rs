//! Telling people: one bounded queue and one task for each webhook, tried until it takes the notice.

use std::time::Duration;

use reqwest::{Client, Url};
use tokio::sync::mpsc;

use crate::lifecycle::{Alert, Notice};

/// Notices that may wait for one webhook; further ones are dropped and counted.
const QUEUE_MAX: usize = 256;
/// Times one notice is tried before the next has its turn.
const TRIES_MAX: u32 = 20;
/// Pause after the first failed try; doubles with each.
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

pub(crate) struct Deliverer {
    first: mpsc::Sender<Alert>,
    second: Option<mpsc::Sender<Alert>>,
}

impl Deliverer {
    pub(crate) fn start(webhooks: &Webhooks, client: &Client) -> Self {
        let open = |name, url: &Url| {
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(deliver(name, url.clone(), client.clone(), receiver));
            sender
        };
        Self { first: open("first", &webhooks.first), second: webhooks.second.as_ref().map(|url| open("second", url)) }
    }

    /// Never waits.
    pub(crate) fn give(&self, notice: Notice) {
        let (queue, alert) = match notice {
            Notice::Tell(alert) => (Some(&self.first), alert),
            Notice::Escalate(alert) => (self.second.as_ref(), alert),
        };
        tracing::info!(kind = %alert.alert, state = alert.state, "alert");
        if queue.is_some_and(|queue| queue.try_send(alert).is_err()) {
            metrics::counter!("forecastle_alert_notices_dropped_total").increment(1);
        }
    }
}

async fn deliver(webhook: &'static str, url: Url, client: Client, mut queue: mpsc::Receiver<Alert>) {
    while let Some(alert) = queue.recv().await {
        let mut pause = PAUSE;
        let mut outcome = "given_up";
        for _ in 0..TRIES_MAX {
            let sent = client.post(url.clone()).json(&alert).send().await;
            if sent.is_ok_and(|answer| answer.status().is_success()) {
                outcome = "told";
                break;
            }
            metrics::counter!("forecastle_alert_tries_failed_total", "webhook" => webhook).increment(1);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        metrics::counter!("forecastle_alert_notices_total", "webhook" => webhook, "outcome" => outcome).increment(1);
    }
}
