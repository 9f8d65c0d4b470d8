//! When a mail counts as sent, when it is tried again, and what happens in between.

use std::time::Duration;

use forecastle_domain::{Currency, DunningNotice, Mail, Money, TokenPurpose};
use forecastle_mail::{SenderConfig, SmtpOptions, Tls, Wording, run};
use forecastle_store::mail_tokens::{self, MailTokenKey};
use forecastle_store::migrate::{RolePasswords, migrate};
use forecastle_store::{Db, DbOptions, mail_outbox};
use forecastle_testbed::{Postgres, SmtpMode, SmtpServer, customers};
use sqlx::postgres::PgConnection;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const KEY: [u8; 32] = [4; 32];

struct Bed {
    db: Db,
    admin: PgConnection,
    smtp: SmtpServer,
    postgres: Postgres,
}

async fn bed() -> Bed {
    let postgres = Postgres::start();
    migrate(&postgres.admin_url(), &RolePasswords::default()).await.expect("migrate");
    let db = Db::open(DbOptions::new(postgres.url_of("forecastle_app"), "mail-test")).expect("open");
    let admin = customers::connect(&postgres.admin_url()).await;
    Bed { db, admin, smtp: SmtpServer::start(), postgres }
}

impl Bed {
    fn config(&self) -> SenderConfig {
        SenderConfig {
            db: DbOptions::new(self.postgres.url_of("forecastle_app"), "mail"),
            smtp: SmtpOptions {
                host: "127.0.0.1".to_owned(),
                port: self.smtp.port(),
                tls: Tls::Off,
                credentials: None,
                timeout: Duration::from_millis(400),
            },
            from: "Forecastle <no-reply@forecastle.example>".to_owned(),
            wording: Wording { public_url: "https://app.example.com".to_owned() },
            token_key: MailTokenKey::new(KEY),
            lease: Duration::from_secs(10),
            poll: Duration::from_millis(20),
            concurrency: 4,
            age_max: Duration::from_secs(300),
            backoff_base: Duration::from_millis(20),
            backoff_cap: Duration::from_millis(40),
            once: false,
        }
    }

    async fn dunning(&mut self, count: u32) {
        let customer = customers::sign_up(&mut self.admin, "PRO", "EUR", "2026-01-01").await;
        let mut tx = self.db.tenant(customer.tenant.into()).begin().await.unwrap();
        for failed_charges in 1..=count {
            let owed = Money::new(Currency::Eur, 1190);
            let mail = Mail::Dunning(DunningNotice { invoice_number: 3, owed, failed_charges, next_charge_on: None });
            let key = format!("dunning 3 {failed_charges}");
            assert_eq!(mail_outbox::enqueue_to_owners(&mut tx, &mail, &key).await, Ok(1));
        }
        tx.commit().await.unwrap();
    }

    async fn until(&mut self, what: &str, statement: &str, wanted: impl Fn(i64) -> bool) {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        while !wanted(customers::count(&mut self.admin, statement).await) {
            assert!(tokio::time::Instant::now() < end, "did not happen within 20 s: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A sender in the background.
struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), forecastle_mail::MailError>>,
}

impl Running {
    fn start(config: SenderConfig) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        Self { stop, ended: tokio::spawn(run(config, stopped)) }
    }

    async fn drain(self) {
        drop(self.stop);
        self.ended.await.unwrap().unwrap();
    }
}

const SENT: &str = "SELECT count(*) FROM app.mail_outbox WHERE state = 'sent'";

#[tokio::test]
async fn each_mail_is_sent_once_though_two_senders_look_for_it() {
    let mut bed = bed().await;
    bed.dunning(30).await;
    let (one, two) = (Running::start(bed.config()), Running::start(bed.config()));
    bed.until("all are sent", SENT, |sent| sent == 30).await;
    one.drain().await;
    two.drain().await;
    let mails = bed.smtp.mails();
    let ids: std::collections::BTreeSet<_> = mails.iter().map(|mail| mail.header("Message-ID").to_owned()).collect();
    assert_eq!((mails.len(), ids.len()), (30, 30));
    assert!(mails[0].text.contains("11.90 EUR for invoice 3"), "{}", mails[0].text);
    assert!(mails[0].recipient.ends_with("@test.example"));
}

#[tokio::test]
async fn a_mail_is_sent_only_after_the_servers_answer_and_is_tried_until_then() {
    let mut bed = bed().await;
    bed.smtp.set(SmtpMode::Refuse(451));
    bed.dunning(1).await;
    let sender = Running::start(bed.config());
    for (mode, code) in [(None, "smtp_451"), (Some(SmtpMode::Silent), "timeout")] {
        if let Some(mode) = mode {
            bed.smtp.set(mode);
        }
        let tried = format!("SELECT count(*) FROM app.mail_outbox WHERE last_error_code LIKE '{code}%'");
        bed.until(code, &tried, |count| count == 1).await;
        assert_eq!(customers::count(&mut bed.admin, SENT).await, 0);
    }
    bed.smtp.set(SmtpMode::Take);
    bed.until("it is sent", SENT, |sent| sent == 1).await;
    sender.drain().await;
    assert_eq!(bed.smtp.mails().len(), 1);
}

#[tokio::test]
async fn a_mail_whose_answer_was_lost_goes_out_again_as_the_same_mail() {
    let mut bed = bed().await;
    bed.smtp.set(SmtpMode::TakeAndHangUp);
    bed.dunning(1).await;
    let sender = Running::start(bed.config());
    bed.until("a second try", "SELECT coalesce(sum(attempts), 0) FROM app.mail_outbox", |tries| tries >= 2).await;
    bed.smtp.set(SmtpMode::Take);
    bed.until("it is sent", SENT, |sent| sent == 1).await;
    sender.drain().await;
    let mails = bed.smtp.mails();
    assert!(mails.len() >= 2);
    assert!(mails.iter().all(|mail| *mail == mails[0]), "to the byte, Message-ID and date included");
}

#[tokio::test]
async fn what_can_never_be_delivered_is_dead_at_once_and_no_code_holds_the_address() {
    let mut bed = bed().await;
    bed.smtp.set(SmtpMode::Refuse(550));
    bed.dunning(1).await;
    let sender = Running::start(bed.config());
    let dead =
        "SELECT count(*) FROM app.mail_outbox WHERE state = 'dead' AND attempts = 1 AND last_error_code = 'smtp_550'";
    bed.until("it is dead", dead, |count| count == 1).await;
    sender.drain().await;
    assert!(bed.smtp.mails().is_empty());
}

#[tokio::test]
async fn a_token_mail_carries_the_token_and_one_made_under_another_key_waits_for_a_sender_that_has_it() {
    let mut bed = bed().await;
    let customer = customers::sign_up(&mut bed.admin, "FREE", "EUR", "2026-01-01").await;
    let mut tx = bed.db.tenant(customer.tenant.into()).begin().await.unwrap();
    let (user, hour) = (customer.user.into(), Duration::from_secs(3600));
    let (ours, foreign) = (MailTokenKey::new(KEY), MailTokenKey::new([5; 32]));
    mail_tokens::issue(&mut tx, &ours, user, TokenPurpose::PasswordReset, hour, "a").await.unwrap();
    mail_tokens::issue(&mut tx, &foreign, user, TokenPurpose::PasswordReset, hour, "b").await.unwrap();
    tx.commit().await.unwrap();
    let sender = Running::start(bed.config());
    let settled = "SELECT count(*) FROM app.mail_outbox WHERE state = 'sent' OR last_error_code = 'token_key_differs'";
    bed.until("both are settled", settled, |count| count == 2).await;
    sender.drain().await;
    let mails = bed.smtp.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].token().expect("a link").len(), 43, "{}", mails[0].text);
}

/// Mails that ended unsent.
const DEAD: &str = "SELECT count(*) FROM app.mail_outbox WHERE state = 'dead'";

#[tokio::test]
async fn a_fault_on_our_side_ends_no_mail() {
    let mut bed = bed().await;
    bed.dunning(1).await;
    let mut config = bed.config();
    config.smtp.credentials = Some(("forecastle".to_owned(), "secret".to_owned()));
    let sender = Running::start(config);
    for (mode, code) in [
        (SmtpMode::RefuseGreeting, "smtp_554"),
        (SmtpMode::RefuseLogin, "smtp_535"),
        (SmtpMode::RefuseRecipient("550 5.7.1 relaying denied"), "smtp_550"),
        (SmtpMode::RefuseRecipient("530 5.7.0 must issue STARTTLS first"), "smtp_530"),
    ] {
        bed.smtp.set(mode);
        let tried = format!("SELECT count(*) FROM app.mail_outbox WHERE last_error_code = '{code}'");
        bed.until(code, &tried, |count| count == 1).await;
        assert_eq!(customers::count(&mut bed.admin, DEAD).await, 0, "{mode:?}");
    }
    bed.smtp.set(SmtpMode::Take);
    bed.until("it is sent", SENT, |sent| sent == 1).await;
    sender.drain().await;
}

#[tokio::test]
async fn a_recipient_that_does_not_exist_ends_its_mail() {
    let mut bed = bed().await;
    bed.smtp.set(SmtpMode::RefuseRecipient("550 5.1.1 no such user"));
    bed.dunning(1).await;
    let sender = Running::start(bed.config());
    bed.until("it is dead", &format!("{DEAD} AND attempts = 1"), |count| count == 1).await;
    sender.drain().await;
}

#[tokio::test]
async fn a_mail_of_a_newer_release_waits_for_a_sender_that_knows_it() {
    let mut bed = bed().await;
    bed.dunning(1).await;
    let newer = "UPDATE app.mail_outbox SET template = 'of_tomorrow'";
    sqlx::query(newer).execute(&mut bed.admin).await.unwrap();
    let sender = Running::start(bed.config());
    let tried = "SELECT count(*) FROM app.mail_outbox WHERE last_error_code = 'template_unknown' AND attempts > 1";
    bed.until("it is tried again", tried, |count| count == 1).await;
    let known = "UPDATE app.mail_outbox SET template = 'dunning'";
    sqlx::query(known).execute(&mut bed.admin).await.unwrap();
    bed.until("it is sent", SENT, |sent| sent == 1).await;
    sender.drain().await;
}

#[tokio::test]
async fn a_mail_ends_by_its_age_and_not_by_how_often_it_was_tried() {
    let mut bed = bed().await;
    bed.smtp.set(SmtpMode::RefuseGreeting);
    bed.dunning(1).await;
    let sender = Running::start(bed.config());
    // More tries than any count that was ever the default.
    bed.until("many tries", "SELECT attempts::bigint FROM app.mail_outbox", |tries| tries > 25).await;
    assert_eq!(customers::count(&mut bed.admin, DEAD).await, 0);
    let aged = "UPDATE app.mail_outbox SET created_at = created_at - interval '301 s'";
    sqlx::query(aged).execute(&mut bed.admin).await.unwrap();
    bed.until("it is dead", DEAD, |dead| dead == 1).await;
    sender.drain().await;
}

#[tokio::test]
async fn a_mail_that_was_taken_while_the_database_was_away_is_not_sent_again() {
    let mut bed = bed().await;
    bed.dunning(1).await;
    let away = "CREATE FUNCTION app.away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'shutting down' USING ERRCODE = 'admin_shutdown'; END $$;
        CREATE TRIGGER away BEFORE UPDATE ON app.mail_outbox FOR EACH ROW WHEN (NEW.state = 'sent')
            EXECUTE FUNCTION app.away()";
    sqlx::raw_sql(away).execute(&mut bed.admin).await.unwrap();
    let mut config = bed.config();
    // A sender holds a mail for its time-out and five seconds at least.
    config.lease = Duration::from_millis(100);
    let sender = Running::start(config);
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while bed.smtp.mails().is_empty() {
        assert!(tokio::time::Instant::now() < end, "the mail server never got it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let over = "SELECT count(*) FROM app.mail_outbox WHERE lease_until < clock_timestamp()";
    bed.until("the lease is over", over, |count| count == 1).await;
    sqlx::raw_sql("DROP TRIGGER away ON app.mail_outbox").execute(&mut bed.admin).await.unwrap();
    bed.until("it is noted", SENT, |sent| sent == 1).await;
    sender.drain().await;
    assert_eq!(bed.smtp.mails().len(), 1);
}

#[tokio::test]
async fn once_sends_what_is_due_behind_mails_that_are_over() {
    let mut bed = bed().await;
    let customer = customers::sign_up(&mut bed.admin, "FREE", "EUR", "2026-01-01").await;
    let mut tx = bed.db.tenant(customer.tenant.into()).begin().await.unwrap();
    let (user, hour) = (customer.user.into(), Duration::from_secs(3600));
    for number in 0..9 {
        let key = MailTokenKey::new(KEY);
        mail_tokens::issue(&mut tx, &key, user, TokenPurpose::PasswordReset, hour, &format!("reset {number}"))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    let over = "UPDATE app.mail_tokens SET expires_at = now() - interval '1 s'";
    sqlx::query(over).execute(&mut bed.admin).await.unwrap();
    bed.dunning(1).await;
    // More of them than one batch holds.
    let config = SenderConfig { once: true, concurrency: 4, ..bed.config() };
    run(config, std::future::pending()).await.unwrap();
    assert_eq!(bed.smtp.mails().len(), 1);
    let ended = "SELECT count(*) FROM app.mail_outbox WHERE state = 'dead' AND last_error_code = 'token_over'";
    assert_eq!(customers::count(&mut bed.admin, ended).await, 9);
}
