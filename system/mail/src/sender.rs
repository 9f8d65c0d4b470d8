//! The loop: claim, send, note what became of it.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use forecastle_store::backlog::backlog;
use forecastle_store::mail_outbox::{self, ClaimedMail, MailOutcome, MailTerms};
use forecastle_store::mail_tokens::MailTokenKey;
use forecastle_store::{Db, DbOptions, StoreError};
use lettre::message::Mailbox;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::compose::Wording;
use crate::send::Desk;
use crate::smtp::{BadSmtpAddress, Refusal, Smtp, SmtpOptions};

/// Times the note of an outcome is tried once the sender is to end, or where it is refused.
const SETTLE_TRIES_MAX: u32 = 5;
/// Pause between two of them.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);
/// How much longer than the mail server's time-out a claim must hold, for the note itself.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// Everything a sender needs to know. Holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct SenderConfig {
    /// How to reach PostgreSQL.
    pub db: DbOptions,
    /// How to reach the mail server.
    pub smtp: SmtpOptions,
    /// Sender of every mail, `name <address>` or an address.
    pub from: String,
    /// What the texts say.
    pub wording: Wording,
    /// The key tokens are derived under, the same as the API's.
    pub token_key: MailTokenKey,
    /// How long a claim holds; made longer where the mail server's time-out needs it.
    pub lease: Duration,
    /// Longest time between two looks at the outbox.
    pub poll: Duration,
    /// Mails sent at once.
    pub concurrency: u32,
    /// Age beyond which a mail that was tried is dead; one with a token ends with it.
    pub age_max: Duration,
    /// Back-off after the first try; doubles with each.
    pub backoff_base: Duration,
    /// Longest back-off.
    pub backoff_cap: Duration,
    /// Send what is due, once, and return.
    pub once: bool,
}

/// Why a sender did not start.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The database's address does not parse.
    #[error("open database pool: {0}")]
    Database(#[from] StoreError),
    /// The mail server's address cannot be used.
    #[error("open mail transport: {0}")]
    Smtp(#[from] BadSmtpAddress),
    /// The sender's address does not parse.
    #[error("read the sender's address")]
    From,
}

struct Sender {
    db: Db,
    desk: Desk,
    config: SenderConfig,
    /// Whether the sender is to end.
    draining: watch::Receiver<bool>,
}

/// Sends mails until `shutdown` resolves; then finishes those under way and returns. A server that does
/// not answer delays it and never ends it.
///
/// # Errors
/// An address that does not parse.
pub async fn run(config: SenderConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), MailError> {
    let db = Db::open(config.db.clone())?;
    let from: Mailbox = config.from.parse().map_err(|_| MailError::From)?;
    let desk = Desk {
        smtp: Smtp::new(&config.smtp)?,
        wording: config.wording.clone(),
        from,
        token_key: config.token_key.clone(),
    };
    let (drain, draining) = watch::channel(false);
    let sender = Arc::new(Sender { db, desk, config, draining });
    tokio::pin!(shutdown);
    loop {
        // Told of the shutdown, and not ended by it: a claim that was sent has to be heard, and its mails settled.
        let round = sender.round();
        tokio::pin!(round);
        let taken = tokio::select! {
            biased;
            taken = &mut round => taken,
            () = &mut shutdown => {
                drain.send_replace(true);
                round.await;
                break;
            }
        };
        sender.measure().await;
        if taken == 0 && sender.config.once {
            break;
        }
        let wait = if taken > 0 { Duration::ZERO } else { jittered(sender.config.poll) };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    sender.db.close(Duration::from_secs(1)).await;
    Ok(())
}

impl Sender {
    /// Claims and sends one batch; how many mails it took.
    async fn round(self: &Arc<Self>) -> usize {
        let terms = MailTerms { lease: self.config.lease.max(self.config.smtp.timeout + LEASE_MARGIN) };
        let mails = match mail_outbox::claim(&self.db, self.config.concurrency, terms).await {
            Ok(mails) => mails,
            Err(error) => {
                tracing::warn!(error = %error, "claim mails");
                metrics::counter!("forecastle_mail_claim_errors_total").increment(1);
                return 0;
            }
        };
        let taken = mails.len();
        let mut sending = JoinSet::new();
        for mail in mails {
            let sender = Arc::clone(self);
            sending.spawn(async move { sender.send_one(&mail).await });
        }
        while sending.join_next().await.is_some() {}
        taken
    }

    async fn send_one(&self, mail: &ClaimedMail) {
        let age = (Utc::now() - mail.created_at).to_std().unwrap_or_default();
        let is_over = age >= self.config.age_max;
        let sent = match mail.attempt {
            // However old: each is tried once.
            2.. if is_over => Err(Refusal::Permanent("too_old".to_owned())),
            _ => self.desk.send(mail).await,
        };
        let (outcome, word) = match &sent {
            Ok(()) => (MailOutcome::Sent, "sent"),
            Err(Refusal::Permanent(code)) => (MailOutcome::Dead { code }, "dead"),
            Err(Refusal::Transient(code)) if is_over => (MailOutcome::Dead { code }, "dead"),
            Err(Refusal::Transient(code)) => (MailOutcome::Later { wait: self.backoff(mail.attempt), code }, "later"),
        };
        let code = sent.as_ref().err().map_or("", Refusal::code);
        let kind = mail.mail.as_ref().map_or("unknown", |mail| mail.template());
        metrics::counter!("forecastle_mails_total", "outcome" => word, "template" => kind).increment(1);
        if word == "dead" {
            tracing::error!(kind, code, attempt = mail.attempt, "mail given up");
        } else {
            tracing::info!(kind, code, attempt = mail.attempt, outcome = word, "mail tried");
        }
        self.settle(mail, outcome).await;
    }

    /// Until a database that was away has heard it: a mail that was taken and not noted is sent again when the
    /// lease runs out. A sender that is to end, or is refused, tries a few times more.
    async fn settle(&self, mail: &ClaimedMail, outcome: MailOutcome<'_>) {
        let mut last_tries = 0;
        while last_tries < SETTLE_TRIES_MAX {
            match mail_outbox::settle(&self.db, mail, outcome).await {
                Ok(true) => return,
                // A try whose answer was lost may have settled it; else another sender has it.
                Ok(false) => {
                    metrics::counter!("forecastle_mail_claims_lost_total").increment(1);
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "settle mail");
                    last_tries += u32::from(!error.is_unavailable() || *self.draining.borrow());
                }
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    /// Doubles with each try, with up to a quarter of jitter taken off.
    fn backoff(&self, attempt: u32) -> Duration {
        let doubled = self.config.backoff_base.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        doubled.min(self.config.backoff_cap).mul_f64(rand::rng().random_range(0.75..=1.0))
    }

    async fn measure(&self) {
        if let Ok(backlog) = backlog(&self.db).await {
            backlog.publish();
        }
    }
}

/// Between half and all of it, so that idle senders do not ask in step.
fn jittered(poll: Duration) -> Duration {
    poll.mul_f64(rand::rng().random_range(0.5..=1.0))
}
