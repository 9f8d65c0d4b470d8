//! A mail server that keeps what it is given and can be told to misbehave.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How it answers a mail's end of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpMode {
    /// Keeps it and says 250.
    Take,
    /// Refuses it with this code: 4xx for now, 5xx for ever.
    Refuse(u16),
    /// Refuses every connection with 554 instead of a greeting.
    RefuseGreeting,
    /// Wants a login, and refuses each with 535.
    RefuseLogin,
    /// Refuses every recipient with this answer.
    RefuseRecipient(&'static str),
    /// Takes connections and never says a word.
    Silent,
    /// Keeps it and hangs up before it answers: its client cannot know.
    TakeAndHangUp,
}

/// A mail as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMail {
    /// Address of the envelope.
    pub recipient: String,
    /// Headers and body, without the transparency dots.
    pub text: String,
}

impl ReceivedMail {
    /// A header's value, without folding; empty if absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
    }

    /// The token of its link, if it has one.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        // A long line is folded by a soft break of quoted-printable.
        let joined = self.text.replace("=\r\n", "").replace("=\n", "");
        let link = joined.split_whitespace().find(|word| word.contains("://") && word.contains('#'))?;
        link.split_once('#').map(|(_, token)| token.to_owned())
    }
}

struct Shared {
    mode: Mutex<SmtpMode>,
    mails: Mutex<Vec<ReceivedMail>>,
}

/// A server on a free port of the loopback address; its threads end with their connections.
#[derive(Clone)]
pub struct SmtpServer {
    shared: Arc<Shared>,
    port: u16,
}

impl SmtpServer {
    /// Starts one.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a free port");
        let port = listener.local_addr().expect("read the port").port();
        let shared = Arc::new(Shared { mode: Mutex::new(SmtpMode::Take), mails: Mutex::new(Vec::new()) });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || shared.converse(&connection));
            }
        });
        Self { shared, port }
    }

    /// The port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Changes how mails are answered from now on.
    pub fn set(&self, mode: SmtpMode) {
        *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// What was kept so far, in order of arrival.
    #[must_use]
    pub fn mails(&self) -> Vec<ReceivedMail> {
        self.shared.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn mode(&self) -> SmtpMode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection, command by command; any broken read or write ends it.
    fn converse(&self, connection: &TcpStream) -> Option<()> {
        connection.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        if self.mode() == SmtpMode::Silent {
            let mut nothing = String::new();
            return BufReader::new(connection).read_line(&mut nothing).ok().map(drop);
        }
        let mut reader = BufReader::new(connection);
        let mut writer = connection;
        if self.mode() == SmtpMode::RefuseGreeting {
            return writer.write_all(b"554 no service here\r\n").ok();
        }
        writer.write_all(b"220 testbed ESMTP\r\n").ok()?;
        let mut recipient = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return Some(());
            }
            let command = line.trim_end();
            let upper = command.to_ascii_uppercase();
            if upper.starts_with("EHLO") {
                writer.write_all(b"250-testbed\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n").ok()?;
            } else if upper.starts_with("AUTH ") && self.mode() == SmtpMode::RefuseLogin {
                writer.write_all(b"535 5.7.8 credentials invalid\r\n").ok()?;
            } else if upper.starts_with("AUTH ") {
                writer.write_all(b"235 welcome\r\n").ok()?;
            } else if let (true, SmtpMode::RefuseRecipient(answer)) = (upper.starts_with("RCPT TO:"), self.mode()) {
                writer.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
            } else if upper.starts_with("RCPT TO:") {
                recipient = command[8..].trim().trim_matches(['<', '>']).to_owned();
                writer.write_all(b"250 ok\r\n").ok()?;
            } else if upper == "DATA" {
                writer.write_all(b"354 go ahead\r\n").ok()?;
                let text = read_data(&mut reader)?;
                let mode = self.mode();
                if matches!(mode, SmtpMode::Take | SmtpMode::TakeAndHangUp) {
                    let mail = ReceivedMail { recipient: recipient.clone(), text };
                    self.mails.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
                }
                match mode {
                    SmtpMode::Take => writer.write_all(b"250 kept\r\n").ok()?,
                    SmtpMode::Refuse(code) => {
                        writer.write_all(format!("{code} not {recipient}\r\n").as_bytes()).ok()?;
                    }
                    SmtpMode::Silent => {
                        let mut nothing = String::new();
                        return reader.read_line(&mut nothing).ok().map(drop);
                    }
                    SmtpMode::TakeAndHangUp => return Some(()),
                    // Told to in the middle of a mail.
                    SmtpMode::RefuseGreeting | SmtpMode::RefuseLogin | SmtpMode::RefuseRecipient(_) => {
                        writer.write_all(b"451 later\r\n").ok()?;
                    }
                }
            } else if upper == "QUIT" {
                return writer.write_all(b"221 bye\r\n").ok();
            } else {
                writer.write_all(b"250 ok\r\n").ok()?;
            }
        }
    }
}

fn read_data(reader: &mut impl std::io::BufRead) -> Option<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == ".\r\n" {
            return Some(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
