//! The proxy server as a program, spoken to over its API alone.
//!
//! Ours, unless `NOGO_TOXIPROXY_PROGRAM` names the official server's binary: what is asked of it
//! here holds for both.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{private_servers::free_address, wait::wait_until};

const START_MAX: Duration = Duration::from_secs(10);
const END_MAX: Duration = Duration::from_secs(10);

/// A running server; killed when dropped.
pub struct Program {
    child: Child,
    pub api: SocketAddr,
    http: reqwest::Client,
}

/// An answer as far as cases look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// Null where the body is not JSON.
    pub json: Value,
    pub text: String,
}

impl Program {
    /// Starts the server and waits until it answers.
    pub async fn start() -> Self {
        match std::env::var_os("NOGO_TOXIPROXY_PROGRAM") {
            Some(official) => {
                let api = free_address();
                let child = Command::new(&official)
                    .args(["-host", "127.0.0.1", "-port", &api.port().to_string()])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap_or_else(|error| panic!("start {}: {error}", official.display()));
                Self::ready(child, api).await
            }
            None => Self::start_ours(&["--listen", "127.0.0.1:0", "--seed", "1"]).await,
        }
    }

    /// Starts our server with these arguments, among them one that makes it take a free port.
    pub async fn start_ours(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_toxid"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start toxid");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its first line");
        let api = line
            .strip_prefix("toxid: API on http://")
            .and_then(|rest| rest.split(',').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no address: {line}"));
        Self::ready(child, api).await
    }

    async fn ready(child: Child, api: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("client");
        let program = Self { child, api, http };
        wait_until("the API answers", START_MAX, || async {
            program.http.get(format!("http://{api}/version")).send().await.ok()
        })
        .await;
        program
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the program to end by itself; its exit code.
    pub async fn exit_code(mut self) -> Option<i32> {
        let child = Mutex::new(&mut self.child);
        let status = wait_until("the program has ended", END_MAX, || async {
            child.lock().expect("lock").try_wait().expect("ask for its status")
        })
        .await;
        status.code()
    }

    pub async fn get_as(&self, agent: &str, path: &str) -> reqwest::Response {
        let url = format!("http://{}{path}", self.api);
        self.http.get(url).header("User-Agent", agent).send().await.expect("answer")
    }

    pub async fn send(&self, method: Method, path: &str, body: String) -> Answer {
        let url = format!("http://{}{path}", self.api);
        let response = self.http.request(method, url).body(body).send().await.expect("answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("body");
        Answer { status, json: serde_json::from_str(&text).unwrap_or(Value::Null), text }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, String::new()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, if body.is_null() { String::new() } else { body.to_string() }).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, String::new()).await
    }

    /// Creates a proxy of this name that leads nowhere; where it listens.
    pub async fn with_proxy(&self, name: &str) -> SocketAddr {
        let made = self.post("/proxies", nowhere(name, "localhost:0")).await;
        assert_eq!(made.status, 201, "{made:?}");
        address_of(&made.json)
    }

    /// Adds a toxic that must be taken.
    pub async fn toxic(&self, proxy: &str, toxic: Value) -> Value {
        let added = self.post(&format!("/proxies/{proxy}/toxics"), toxic).await;
        assert_eq!(added.status, 200, "{added:?}");
        added.json
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    /// Whether this is a refusal in these words.
    #[track_caller]
    pub fn refuses(&self, status: u16, words: &str) {
        let expected = json!({ "error": words, "status": status });
        assert_eq!((self.status, &self.json), (status, &expected), "{self:?}");
    }
}

/// A proxy to a port where nobody listens.
pub fn nowhere(name: &str, listen: &str) -> Value {
    json!({ "name": name, "listen": listen, "upstream": "localhost:9", "enabled": true })
}

pub fn address_of(proxy: &Value) -> SocketAddr {
    proxy["listen"].as_str().expect("listen").parse().expect("address")
}

/// Whether somebody listens there.
pub fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
}
