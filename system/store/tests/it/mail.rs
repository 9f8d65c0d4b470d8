//! The outbox: one mail for each cause, one sender at a time, and no secret in any row.

use std::time::Duration;

use forecastle_domain::{Currency, DunningNotice, Mail, Money, TenantId, TokenPurpose, UserId};
use forecastle_store::backlog;
use forecastle_store::mail_outbox::{self, MailOutcome, MailTerms};
use forecastle_store::mail_tokens::{self, MailTokenKey};
use forecastle_testbed::customers::{self, Customer};

use crate::support::{Bed, bed, wait_until};

const TERMS: MailTerms = MailTerms { lease: Duration::from_secs(30) };
const HOUR: Duration = Duration::from_secs(3600);

fn dunning() -> Mail {
    Mail::Dunning(DunningNotice {
        invoice_number: 3,
        owed: Money::new(Currency::Eur, 1190),
        failed_charges: 1,
        next_charge_on: chrono::NaiveDate::from_ymd_opt(2026, 2, 4),
    })
}

async fn customer(bed: &mut Bed) -> (Customer, TenantId, UserId) {
    let customer = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    (customer, customer.tenant.into(), customer.user.into())
}

#[tokio::test]
async fn a_cause_that_is_driven_again_writes_one_mail_and_one_that_rolls_back_writes_none() {
    let mut bed = bed().await;
    let (_, tenant, _) = customer(&mut bed).await;
    let mut tx = bed.db.tenant(tenant).begin().await.unwrap();
    assert_eq!(mail_outbox::enqueue_to_owners(&mut tx, &dunning(), "dunning 3 1").await, Ok(1));
    tx.rollback().await;
    assert!(mail_outbox::claim(&bed.db, 10, TERMS).await.unwrap().is_empty());

    for expected in [1, 0] {
        let mut tx = bed.db.tenant(tenant).begin().await.unwrap();
        assert_eq!(mail_outbox::enqueue_to_owners(&mut tx, &dunning(), "dunning 3 1").await, Ok(expected));
        tx.commit().await.unwrap();
    }
    let mails = mail_outbox::claim(&bed.db, 10, TERMS).await.unwrap();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].mail, Some(dunning()), "the parameters come back as they were");
    assert!(mails[0].recipient.ends_with("@test.example"));
    assert!(mail_outbox::claim(&bed.db, 10, TERMS).await.unwrap().is_empty(), "it is leased");

    assert_eq!(mail_outbox::settle(&bed.db, &mails[0], MailOutcome::Sent).await, Ok(true));
    assert_eq!(mail_outbox::settle(&bed.db, &mails[0], MailOutcome::Sent).await, Ok(false), "once");
    let backlog = backlog::backlog(&bed.db).await.unwrap();
    assert_eq!((backlog.mail_waiting, backlog.mail_dead_last_hour), (0, 0));
}

#[tokio::test]
async fn a_sender_past_its_lease_changes_nothing_and_a_mail_that_is_given_up_is_dead() {
    let mut bed = bed().await;
    let (_, tenant, user) = customer(&mut bed).await;
    let mut tx = bed.db.tenant(tenant).begin().await.unwrap();
    assert_eq!(mail_outbox::enqueue(&mut tx, user, &dunning(), "k").await, Ok(true));
    tx.commit().await.unwrap();
    let short = MailTerms { lease: Duration::from_millis(1) };
    let first = mail_outbox::claim(&bed.db, 1, short).await.unwrap().remove(0);
    let mut second = None;
    wait_until("the lease runs out", async || {
        second = mail_outbox::claim(&bed.db, 1, short).await.unwrap().pop();
        second.is_some()
    })
    .await;
    let second = second.unwrap();
    assert_eq!((first.attempt, second.attempt, first.mail_id), (1, 2, second.mail_id));
    assert_eq!(mail_outbox::settle(&bed.db, &first, MailOutcome::Sent).await, Ok(false), "its lease is over");
    let later = MailOutcome::Later { wait: Duration::ZERO, code: "smtp_451" };
    assert_eq!(mail_outbox::settle(&bed.db, &second, later).await, Ok(true));
    let third = mail_outbox::claim(&bed.db, 1, short).await.unwrap().remove(0);
    assert_eq!(third.attempt, 3, "tries alone end no mail");
    assert_eq!(mail_outbox::settle(&bed.db, &third, MailOutcome::Dead { code: "too_old" }).await, Ok(true));
    assert!(mail_outbox::claim(&bed.db, 1, short).await.unwrap().is_empty());
    let backlog = backlog::backlog(&bed.db).await.unwrap();
    assert_eq!((backlog.mail_waiting, backlog.mail_dead_last_hour), (0, 1));
}

#[tokio::test]
async fn no_row_holds_a_token_and_the_senders_key_gives_it_back() {
    let mut bed = bed().await;
    let (_, tenant, user) = customer(&mut bed).await;
    let key = MailTokenKey::new([9; 32]);
    for expected in [true, false] {
        let mut tx = bed.db.tenant(tenant).begin().await.unwrap();
        let issued = mail_tokens::issue(&mut tx, &key, user, TokenPurpose::PasswordReset, HOUR, "reset").await;
        assert_eq!(issued, Ok(expected));
        tx.commit().await.unwrap();
    }
    let tokens = customers::count(&mut bed.admin, "SELECT count(*) FROM app.mail_tokens").await;
    assert_eq!(tokens, 1, "a mail that is not new makes no token");
    let mail = mail_outbox::claim(&bed.db, 1, TERMS).await.unwrap().remove(0);
    let (token_id, hash) = mail.token.clone().expect("a token");
    let token = key.token(token_id);
    assert_eq!(token.hash().to_vec(), hash);
    let hex: String = token.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let dump = format!(
        "SELECT count(*) FROM (SELECT m::text AS row FROM app.mail_outbox m
         UNION ALL SELECT t::text FROM app.mail_tokens t) AS rows WHERE row LIKE '%{hex}%'"
    );
    assert_eq!(customers::count(&mut bed.admin, &dump).await, 0);

    assert_eq!(mail_tokens::owner(&bed.db, &token, TokenPurpose::PasswordReset).await, Ok(Some(tenant)));
    assert_eq!(mail_tokens::owner(&bed.db, &token, TokenPurpose::EmailVerification).await, Ok(None));
    let mut tx = bed.db.tenant(tenant).begin().await.unwrap();
    assert!(mail_tokens::reset_password(&mut tx, &token, "$argon2id$x").await.unwrap().is_some());
    tx.commit().await.unwrap();
    let mut tx = bed.db.tenant(tenant).begin().await.unwrap();
    assert_eq!(mail_tokens::reset_password(&mut tx, &token, "$argon2id$y").await, Ok(None), "single use");
    assert_eq!(mail_tokens::owner(&bed.db, &token, TokenPurpose::PasswordReset).await, Ok(None));
}

#[tokio::test]
async fn a_mail_whose_token_is_over_is_never_sent() {
    let mut bed = bed().await;
    let (_, tenant, user) = customer(&mut bed).await;
    let mut tx = bed.db.tenant(tenant).begin().await.unwrap();
    let key = MailTokenKey::new([9; 32]);
    let purpose = TokenPurpose::EmailVerification;
    assert_eq!(mail_tokens::issue(&mut tx, &key, user, purpose, Duration::ZERO, "verify").await, Ok(true));
    tx.commit().await.unwrap();
    assert!(mail_outbox::claim(&bed.db, 1, TERMS).await.unwrap().is_empty());
    let codes = "SELECT count(*) FROM app.mail_outbox WHERE state = 'dead' AND last_error_code = 'token_over'";
    assert_eq!(customers::count(&mut bed.admin, codes).await, 1);
}
