//! One mail, from its row to the mail server's answer.

use forecastle_store::mail_outbox::ClaimedMail;
use forecastle_store::mail_tokens::MailTokenKey;
use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;

use crate::compose::Wording;
use crate::smtp::{Refusal, Smtp};

/// What a sender needs for each mail.
pub(crate) struct Desk {
    pub(crate) smtp: Smtp,
    pub(crate) wording: Wording,
    pub(crate) from: Mailbox,
    pub(crate) token_key: MailTokenKey,
}

impl Desk {
    /// Sends it; on a refusal says whether another try makes sense, and a stable word why.
    pub(crate) async fn send(&self, mail: &ClaimedMail) -> Result<(), Refusal> {
        let message = self.message(mail)?;
        self.smtp.send(&message).await
    }

    /// The same bytes for the same row, Message-ID and Date included: a mail that goes out twice can be
    /// told to be one.
    fn message(&self, mail: &ClaimedMail) -> Result<Message, Refusal> {
        // Written by a newer release, or under another installation's key: a sender that fits may come yet.
        let not_here = |word: &str| Refusal::Transient(word.to_owned());
        let never = |word: &str| Refusal::Permanent(word.to_owned());
        let known = mail.mail.as_ref().ok_or_else(|| not_here("template_unknown"))?;
        let token = match &mail.token {
            None => None,
            Some((token_id, hash)) => {
                let token = self.token_key.token(*token_id);
                if token.hash().as_slice() != hash.as_slice() {
                    return Err(not_here("token_key_differs"));
                }
                Some(token)
            }
        };
        let text = self.wording.compose(known, token.as_ref()).ok_or_else(|| never("token_missing"))?;
        let to: Mailbox = mail.recipient.parse().map_err(|_| never("recipient_malformed"))?;
        Message::builder()
            .from(self.from.clone())
            .to(to)
            .message_id(Some(format!("<{}@{}>", mail.mail_id, self.from.email.domain())))
            .date(mail.created_at.into())
            .subject(text.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(text.body)
            .map_err(|_| never("message_malformed"))
    }
}
