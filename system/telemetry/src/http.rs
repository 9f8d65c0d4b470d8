//! One POST to a sink, bounded in time.

use std::time::Duration;

use reqwest::{Client, Url};

/// A sink's address cannot be used. Repeats nothing of it: it may hold a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSinkAddress {
    /// Not a URL of the form needed.
    #[error("a sink's address does not read")]
    Malformed,
    /// Not plain HTTP.
    #[error("a sink is spoken to in plain http; put a relay beside the instance for https")]
    NotHttp,
}

/// A client of one sink.
pub(crate) struct Poster {
    client: Client,
    url: Url,
}

/// Reads an address, which must be plain HTTP.
pub(crate) fn plain_url(text: &str) -> Result<Url, BadSinkAddress> {
    let url = Url::parse(text).map_err(|_| BadSinkAddress::Malformed)?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        "http" => Err(BadSinkAddress::Malformed),
        _ => Err(BadSinkAddress::NotHttp),
    }
}

impl Poster {
    pub(crate) fn new(url: Url, timeout: Duration) -> Result<Self, BadSinkAddress> {
        let client = Client::builder().timeout(timeout).connect_timeout(timeout).no_proxy();
        Ok(Self { client: client.build().map_err(|_| BadSinkAddress::Malformed)?, url })
    }

    /// # Errors
    /// A stable word for a metric's label.
    pub(crate) async fn post(&self, headers: &[(&'static str, &str)], body: Vec<u8>) -> Result<(), &'static str> {
        let mut request = self.client.post(self.url.clone()).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(_) => Err("refused"),
            Err(error) if error.is_timeout() => Err("timeout"),
            Err(_) => Err("unreachable"),
        }
    }
}
