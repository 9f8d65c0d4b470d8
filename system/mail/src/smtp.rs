//! The connection to the mail server: one for each mail, every step bounded.

use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls as Encryption, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

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
    /// Not now: no connection, no answer in time, or a 4xx. The server may have taken it unheard.
    Transient(String),
    /// A 5xx: never.
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
    transport: AsyncSmtpTransport<Tokio1Executor>,
    timeout: Duration,
}

impl Smtp {
    pub(crate) fn new(options: &SmtpOptions) -> Result<Self, BadSmtpAddress> {
        let is_loopback = options.host == "localhost"
            || options.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if options.credentials.is_some() && options.tls == Tls::Off && !is_loopback {
            return Err(BadSmtpAddress::PasswordInClear);
        }
        let encryption = match options.tls {
            Tls::Off => Encryption::None,
            Tls::Required => {
                Encryption::Required(TlsParameters::new(options.host.clone()).map_err(|_| BadSmtpAddress::Tls)?)
            }
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&options.host)
            .port(options.port)
            .tls(encryption)
            .hello_name(ClientId::Domain("forecastle".to_owned()))
            .timeout(Some(options.timeout));
        if let Some((user, password)) = &options.credentials {
            builder = builder.credentials(Credentials::new(user.clone(), password.clone()));
        }
        Ok(Self { transport: builder.build(), timeout: options.timeout })
    }

    /// Returns once the server has answered the whole mail with 250.
    pub(crate) async fn send(&self, message: Message) -> Result<(), Refusal> {
        let transient = |word: &str| Refusal::Transient(word.to_owned());
        match tokio::time::timeout(self.timeout, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Err(_) => Err(transient("timeout")),
            Ok(Err(error)) => {
                // The code alone: an answer's text may repeat the address.
                match error.status() {
                    Some(status) if error.is_permanent() => Err(Refusal::Permanent(format!("smtp_{status}"))),
                    Some(status) => Err(Refusal::Transient(format!("smtp_{status}"))),
                    None if error.is_timeout() => Err(transient("timeout")),
                    None if error.is_response() => Err(transient("bad_answer")),
                    None => Err(transient("unreachable")),
                }
            }
        }
    }
}
