//! The connection to the mail server: one for each mail, every step bounded. Only the steps in which the
//! recipient is judged can end a mail; a fault on our side leaves it to a later try.

use std::error::Error as _;
use std::time::Duration;

use lettre::Message;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, MailBodyParameter, MailParameter};
use tokio::time::{Instant, timeout_at};

/// Longest wait for the server to say good-bye.
const QUIT_MAX: Duration = Duration::from_secs(1);

/// Whether the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Plain: for a relay on the same host or network.
    Off,
    /// STARTTLS, or the mail waits.
    Required,
}

/// How to reach the mail server. Has no `Debug`: it may hold a password.
#[derive(Clone)]
pub struct SmtpOptions {
    /// Host name or address; with TLS also the name its certificate must have.
    pub host: String,
    /// Port, 25 or 587 as a rule.
    pub port: u16,
    /// Encryption.
    pub tls: Tls,
    /// User and password, if the server wants them; only ever sent with TLS or to loopback.
    pub credentials: Option<(String, String)>,
    /// Longest time for one mail, from connecting to the server's last answer.
    pub timeout: Duration,
}

/// The mail server's address cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSmtpAddress {
    /// TLS could not be set up for the name.
    #[error("mail server's name cannot be used with TLS")]
    Tls,
    /// A password would travel in clear.
    #[error("mail server's password needs TLS, or a server on loopback")]
    PasswordInClear,
}

/// Why the server did not take a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not now: no connection, no answer in time, a 4xx, or a 5xx that speaks of us or of the server. The server
    /// may have taken it unheard.
    Transient(String),
    /// The recipient cannot be reached, ever.
    Permanent(String),
}

impl Refusal {
    /// A stable word; never the server's own text.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Transient(code) | Self::Permanent(code) => code,
        }
    }
}

pub(crate) struct Smtp {
    host: String,
    port: u16,
    tls: Option<TlsParameters>,
    credentials: Option<Credentials>,
    hello_name: ClientId,
    timeout: Duration,
}

impl Smtp {
    pub(crate) fn new(options: &SmtpOptions) -> Result<Self, BadSmtpAddress> {
        let is_loopback = options.host == "localhost"
            || options.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if options.credentials.is_some() && options.tls == Tls::Off && !is_loopback {
            return Err(BadSmtpAddress::PasswordInClear);
        }
        let tls = match options.tls {
            Tls::Off => None,
            Tls::Required => Some(TlsParameters::new(options.host.clone()).map_err(|_| BadSmtpAddress::Tls)?),
        };
        let credentials = options.credentials.clone();
        Ok(Self {
            host: options.host.clone(),
            port: options.port,
            tls,
            credentials: credentials.map(|(user, password)| Credentials::new(user, password)),
            hello_name: ClientId::Domain("forecastle".to_owned()),
            timeout: options.timeout,
        })
    }

    /// Returns once the server has answered the whole mail with 250.
    pub(crate) async fn send(&self, message: &Message) -> Result<(), Refusal> {
        let end = Instant::now() + self.timeout;
        let too_late = || Refusal::Transient("timeout".to_owned());
        let mut connection = timeout_at(end, self.connect()).await.map_err(|_| too_late())??;
        let taken = timeout_at(end, hand_over(&mut connection, message)).await.unwrap_or_else(|_| Err(too_late()));
        // Taken is taken, however the parting goes.
        let _ = tokio::time::timeout(QUIT_MAX, connection.abort()).await;
        taken
    }

    /// Up to the point where a mail can be handed over. Whatever is refused here is not the recipient's fault.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Refusal> {
        let server = (self.host.as_str(), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(self.timeout), &self.hello_name, None, None)
                .await
                .map_err(|error| for_now(&error))?;
        if let Some(tls) = &self.tls {
            connection.starttls(tls.clone(), &self.hello_name).await.map_err(|error| for_now(&error))?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await.map_err(|error| for_now(&error))?;
        }
        Ok(connection)
    }
}

async fn hand_over(connection: &mut AsyncSmtpConnection, message: &Message) -> Result<(), Refusal> {
    let (envelope, text) = (message.envelope(), message.formatted());
    let mut parameters = Vec::new();
    if !envelope.to().iter().chain(envelope.from()).all(|address| AsRef::<str>::as_ref(address).is_ascii()) {
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !text.is_ascii() {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let mail = Mail::new(envelope.from().cloned(), parameters);
    connection.command(mail).await.map_err(|error| for_now(&error))?;
    for recipient in envelope.to() {
        connection.command(Rcpt::new(recipient.clone(), Vec::new())).await.map_err(|error| for_good(&error))?;
    }
    connection.command(Data).await.map_err(|error| for_now(&error))?;
    connection.message(&text).await.map_err(|error| for_good(&error))?;
    Ok(())
}

/// A refusal of us, or of everything.
fn for_now(error: &Error) -> Refusal {
    // The code alone: an answer's text may repeat the address.
    Refusal::Transient(match error.status() {
        Some(status) => format!("smtp_{status}"),
        None if error.is_timeout() => "timeout".to_owned(),
        None if error.is_response() => "bad_answer".to_owned(),
        None => "unreachable".to_owned(),
    })
}

/// A refusal where the recipient is what is judged.
fn for_good(error: &Error) -> Refusal {
    let text = error.source().map(ToString::to_string).unwrap_or_default();
    match error.status() {
        Some(status) if error.is_permanent() && is_about_recipient(&status.to_string(), &text) => {
            Refusal::Permanent(format!("smtp_{status}"))
        }
        _ => for_now(error),
    }
}

/// Whether a 5xx to RCPT or to the mail itself says that this recipient is not to be reached: by its enhanced code
/// (RFC 3463: an address that does not exist, a mailbox that takes nothing), else by the codes of RFC 5321 that
/// name the mailbox. Who may send, from where, and how the content is liked (5.7, 554) is about us.
fn is_about_recipient(status: &str, text: &str) -> bool {
    let mut parts = text.split_whitespace().next().unwrap_or_default().split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("5"), Some(subject), Some(detail), None) if detail.parse::<u16>().is_ok() => match subject {
            // 7 and 8: the sender's own address.
            "1" => !matches!(detail, "7" | "8"),
            subject => subject == "2",
        },
        _ => matches!(status, "550" | "551" | "552" | "553") && !text.to_ascii_lowercase().contains("relay"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_the_recipient_is_about_it() {
        for (status, text) in [
            ("550", "5.1.1 <ada@example.com>: user unknown"),
            ("550", "5.1.10 null MX"),
            ("552", "5.2.2 mailbox full"),
            ("554", "5.2.1 disabled"),
            ("550", "no such user"),
            ("553", ""),
        ] {
            assert!(is_about_recipient(status, text), "{status} {text}");
        }
        for (status, text) in [
            ("554", "5.7.1 relay access denied"),
            ("550", "5.7.1 relaying denied"),
            ("550", "Relaying denied"),
            ("553", "sorry, that domain isn't in my list of allowed RELAY hosts"),
            ("550", "5.1.8 sender's domain does not exist"),
            ("550", "5.7.26 SPF and DKIM failed"),
            ("530", "5.7.0 must issue STARTTLS first"),
            ("554", "transaction failed"),
            ("503", "bad sequence of commands"),
        ] {
            assert!(!is_about_recipient(status, text), "{status} {text}");
        }
    }
}
