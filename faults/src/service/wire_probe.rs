//! The first words of a protocol, said over the wire without credentials: does anybody answer, and how fast?

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

/// What a server may be asked by a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// "May we speak TLS?", which PostgreSQL answers with one letter before it asks who is there.
    Postgres,
    /// PING, which Redis answers or refuses for want of a password; both are answers.
    Redis,
}

impl Greeting {
    fn words(self) -> &'static [u8] {
        match self {
            Self::Postgres => &[0, 0, 0, 8, 4, 210, 22, 47],
            Self::Redis => b"PING\r\n",
        }
    }

    fn is_answer(self, first: u8) -> bool {
        match self {
            Self::Postgres => first == b'N' || first == b'S',
            Self::Redis => first == b'+' || first == b'-',
        }
    }
}

/// Connects, greets, and gives the time from the greeting to the first byte of its answer.
///
/// # Errors
/// In words: refused, reset, closed, an answer of another protocol, or none within `limit`.
pub async fn greet(address: SocketAddr, greeting: Greeting, limit: Duration) -> Result<Duration, String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        let asked = Instant::now();
        stream.write_all(greeting.words()).await.map_err(|error| format!("greet: {error}"))?;
        let mut first = [0];
        match stream.read(&mut first).await {
            Ok(0) => Err("closed without an answer".to_owned()),
            Ok(_) if greeting.is_answer(first[0]) => Ok(asked.elapsed()),
            Ok(_) => Err(format!("answered with byte {}", first[0])),
            Err(error) => Err(format!("read: {error}")),
        }
    };
    tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
}

/// Bytes of an answer that is long enough to show how fast a link carries.
const LONG_ANSWER_BYTES: usize = 2_000;

/// Connects to PostgreSQL, says something that it repeats before it asks who is there, and gives the time until two
/// thousand bytes of its answer have come.
///
/// # Errors
/// As [`greet`].
pub async fn greet_at_length(address: SocketAddr, limit: Duration) -> Result<Duration, String> {
    // A start-up message of protocol 3.0 with an option nobody knows: the server lists those it does not know.
    let mut body = vec![0, 3, 0, 0];
    let option = format!("_pq_.{}", "x".repeat(LONG_ANSWER_BYTES));
    for text in ["user", "nobody", option.as_str(), "1"] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).map_err(|error| error.to_string())?;
    let ask = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        let asked = Instant::now();
        let words = [&length.to_be_bytes()[..], &body].concat();
        stream.write_all(&words).await.map_err(|error| format!("greet: {error}"))?;
        let mut answer = vec![0; LONG_ANSWER_BYTES];
        stream.read_exact(&mut answer).await.map_err(|error| format!("read: {error}"))?;
        if answer[0] == b'v' { Ok(asked.elapsed()) } else { Err(format!("answered with byte {}", answer[0])) }
    };
    tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn silence_a_hang_up_a_stranger_and_an_answer_are_told_apart() {
        for (says, expected) in [
            (Some(&b"+PONG\r\n"[..]), None),
            (Some(b"HTTP/1.1 400"), Some("answered with")),
            (Some(b""), Some("closed")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
            let address = listener.local_addr().expect("address");
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let mut asked = [0; 6];
                stream.read_exact(&mut asked).await.expect("read");
                stream.write_all(says.unwrap_or_default()).await.expect("write");
            });
            let answer = greet(address, Greeting::Redis, LIMIT).await;
            match expected {
                None => assert!(answer.is_ok(), "{answer:?}"),
                Some(word) => assert!(answer.expect_err("no answer").contains(word)),
            }
            server.await.expect("server");
        }
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let answer = greet(silent.local_addr().expect("address"), Greeting::Postgres, LIMIT).await;
        assert!(answer.expect_err("nobody accepts").contains("no answer"));
    }
}
