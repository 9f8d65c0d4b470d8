//! The proxy server as a program of its own, for whoever drives it with a Toxiproxy client.
//!
//! Takes the official server's flags too, also with one dash. Exit codes: 0 stopped by a signal,
//! 2 usage or a configuration that cannot be used, 6 the address cannot be had.

use std::{
    ffi::OsString,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use nogo_faults::{ToxidHandle, ToxidOptions, ToxidServer};
use tokio::{
    net::lookup_host,
    signal::unix::{SignalKind, signal},
};

/// A TCP proxy whose links can be hurt through Toxiproxy's HTTP API (that of release 2.12.0).
#[derive(Debug, Parser)]
#[command(name = "toxid", version)]
struct Arguments {
    /// Where the API listens, as address:port; port 0 takes a free one. In place of --host and --port.
    #[arg(long, env = "TOXID_LISTEN", conflicts_with_all = ["host", "port"])]
    listen: Option<String>,

    /// Host the API listens on.
    #[arg(long, env = "TOXID_HOST", default_value = "localhost")]
    host: String,

    /// Port the API listens on; 0 takes a free one.
    #[arg(long, env = "TOXID_PORT", default_value_t = 8474)]
    port: u16,

    /// Decides every random draw, with the proxy, the number of the connection, its direction and
    /// the toxic's name. Taken from the clock and printed where none is given.
    #[arg(long, env = "TOXID_SEED")]
    seed: Option<u64>,

    /// JSON file with the proxies to create first: an array as POST /populate takes it.
    #[arg(long, env = "TOXID_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Serve /metrics with everything there is.
    #[arg(long, env = "TOXID_METRICS")]
    metrics: bool,

    /// Serve /metrics with the bytes of ended links.
    #[arg(long)]
    proxy_metrics: bool,

    /// Serve /metrics with figures of this process.
    #[arg(long)]
    runtime_metrics: bool,

    /// How long a request to the API may take before 503 is answered, milliseconds.
    #[arg(long, env = "TOXID_HANDLER_MS_MAX", default_value_t = ToxidOptions::default().handler_ms_max)]
    handler_ms_max: u64,

    /// Extension: a reset_peer toxic that is added to a live connection resets it. Without, such a
    /// connection is closed in the ordinary way, as by the official server.
    #[arg(long, env = "TOXID_RESET_LIVE_LINKS")]
    reset_live_links: bool,

    /// Extension: know the toxic `blackhole`, which leaves a half-open connection.
    #[arg(long, env = "TOXID_BLACKHOLE")]
    blackhole: bool,
}

impl Arguments {
    fn options(&self, seed: u64) -> ToxidOptions {
        ToxidOptions {
            seed,
            reset_live_links: self.reset_live_links,
            blackhole: self.blackhole,
            proxy_metrics: self.metrics || self.proxy_metrics,
            runtime_metrics: self.metrics || self.runtime_metrics,
            handler_ms_max: self.handler_ms_max,
        }
    }
}

enum Failure {
    /// Exit 2.
    Usage(String),
    /// Exit 6.
    Environment(String),
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TOXID_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse_from(std::env::args_os().enumerate().map(with_two_dashes));
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(reason)) => {
            eprintln!("toxid: {reason}");
            ExitCode::from(2)
        }
        Err(Failure::Environment(reason)) => {
            eprintln!("toxid: {reason}");
            ExitCode::from(6)
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let environment = |what: &str, error: std::io::Error| Failure::Environment(format!("{what}: {error}"));
    let mut end = signal(SignalKind::terminate()).map_err(|error| environment("wait for SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| environment("wait for SIGINT", error))?;
    let asked = arguments.listen.clone().unwrap_or_else(|| format!("{}:{}", arguments.host, arguments.port));
    let address = first_address(&asked).await.map_err(|error| environment(&format!("find {asked}"), error))?;
    let seed = arguments.seed.unwrap_or_else(seed_of_the_clock);
    let server = ToxidServer::start_with(arguments.options(seed), address)
        .await
        .map_err(|error| environment(&format!("listen on {address}"), error))?;
    let proxies = match &arguments.config {
        Some(file) => populate(&server, file).await?,
        None => 0,
    };
    // Whoever started this with port 0 reads the address here.
    println!("toxid: API on http://{}, seed {seed}, {proxies} proxies", server.api_addr());
    std::io::stdout().flush().map_err(|error| environment("say where the API is", error))?;
    tokio::select! {
        _ = end.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}

async fn populate(server: &ToxidHandle, file: &Path) -> Result<usize, Failure> {
    let usage = |reason: String| Failure::Usage(format!("configuration {}: {reason}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| usage(error.to_string()))?;
    server.populate(&text).await.map_err(|error| usage(error.to_string()))
}

/// IPv4 first, as clients that are told `localhost` mostly mean it.
async fn first_address(asked: &str) -> std::io::Result<SocketAddr> {
    let addresses: Vec<SocketAddr> = lookup_host(asked).await?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
    first.copied().ok_or_else(|| std::io::Error::other("no such host"))
}

fn seed_of_the_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// `-port 1` and `-port=1`, as the official server's flags are written, mean `--port`.
fn with_two_dashes((index, argument): (usize, OsString)) -> OsString {
    let is_long = argument.to_str().is_some_and(|text| {
        let mut letters = text.chars();
        letters.next() == Some('-')
            && letters.next().is_some_and(char::is_alphabetic)
            && letters.next().is_some_and(|letter| letter.is_alphabetic() || letter == '-')
    });
    if index == 0 || !is_long {
        return argument;
    }
    let mut dashed = OsString::from("-");
    dashed.push(argument);
    dashed
}
