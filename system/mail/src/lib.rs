//! Takes mails from the outbox, writes their text and hands them to a mail server by SMTP.
//!
//! Law: a mail is noted as sent after the server's 250 and not before. A sender that dies between that
//! answer and the commit that notes it leaves a mail that is sent again, with the same Message-ID and
//! the same text: delivery is at least once at that one point, and once everywhere else.

mod compose;
mod send;
mod sender;
mod smtp;

pub use compose::Wording;
pub use sender::{MailError, SenderConfig, run};
pub use smtp::{BadSmtpAddress, SmtpOptions, Tls};
