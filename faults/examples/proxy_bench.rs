//! What a link through the proxy costs, beside a direct one: `ci/bench proxy [--short]`.
//!
//! Direct, proxied, proxied with a placebo and followed take turns in blocks, so that a noisy neighbour
//! hurts all of them. Peers are plain threads that block, the proxy runs as it does inside nogo; what they
//! say is Redis's protocol, so that the followed link has something to follow: one rule looks at every
//! command and means none. Prints a table and writes it as JSON; exit 4 if a bar is missed, 1 if it could
//! not be measured.

use std::{
    error::Error,
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use nogo_faults::{
    Action, BookLimits, Occurrence, Origin, Pattern, Place, Protocol, ProxySpec, RedisPattern, Rule, RuleBook, Stream,
    ToxiClient, Toxic, ToxidHandle, ToxidServer, WireEventKind,
};
use serde_json::json;

/// What a round trip through the proxy may take more than a direct one, in the median.
const OVERHEAD_US_MAX: f64 = 100.0;
/// What a single link must carry, unless it is followed.
const BYTES_PER_S_MIN: f64 = 1e9;
const BLOCK_BYTES: usize = 256 * 1024;
const MESSAGE_BYTES: usize = 64;
const WAYS: [&str; 4] = ["direct", "proxied", "placebo", "followed"];

/// Measures links through the proxy beside direct ones.
#[derive(Parser)]
struct Arguments {
    /// Fewer and shorter blocks: shows that it runs, not what the machine can do.
    #[arg(long)]
    short: bool,
    /// Where the table goes as JSON.
    #[arg(long, default_value = "target/bench/proxy.json")]
    json: PathBuf,
}

/// The ways to a server, in the order of the columns.
struct Ways {
    direct: SocketAddr,
    proxied: SocketAddr,
    placebo: SocketAddr,
    followed: SocketAddr,
}

impl Ways {
    fn each(&self) -> [SocketAddr; WAYS.len()] {
        [self.direct, self.proxied, self.placebo, self.followed]
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    let (blocks, round_trips, seconds) = if arguments.short { (3, 500, 0.2) } else { (9, 4_000, 1.0) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (echo, sink) = (serve(echo_all)?, serve(count_all)?);
    let book = book()?;
    let (server, echo, sink) = runtime.block_on(async {
        let server = ToxidServer::start(1, (std::net::Ipv4Addr::LOCALHOST, 0).into()).await?;
        let client = ToxiClient::connect(server.api_addr()).await?;
        let echo = ways(&server, &client, &book, "echo", echo).await?;
        let sink = ways(&server, &client, &book, "sink", sink).await?;
        Ok::<_, Box<dyn Error>>((server, echo, sink))
    })?;

    let mut trips: [Vec<f64>; WAYS.len()] = Default::default();
    let mut rates: [Vec<f64>; WAYS.len()] = Default::default();
    for _ in 0..blocks {
        for (way, address) in echo.each().into_iter().enumerate() {
            trips[way].extend(round_trips_us(address, round_trips)?);
        }
        for (way, address) in sink.each().into_iter().enumerate() {
            rates[way].push(bytes_per_s(address, Duration::from_secs_f64(seconds))?);
        }
    }
    runtime.block_on(server.stop());
    check_followed(&book)?;
    report(&arguments, trips.map(|mut all| median(&mut all)), rates.map(|mut all| median(&mut all)))
}

/// A book with one rule, which is asked about every command and fits none.
fn book() -> Result<RuleBook, Box<dyn Error>> {
    let book = RuleBook::new(Instant::now(), BookLimits::default());
    let pattern = Pattern::Redis(RedisPattern { key_prefix: Some("nobody".into()), ..RedisPattern::default() });
    let name = "bystander".to_owned();
    let (place, action) = (Place::BeforeServer, Action::Cut);
    book.plan(&Rule { name: name.clone(), role: None, pattern, k: Occurrence::EVERY, place, action })?;
    book.install(&name)?;
    Ok(book)
}

/// Whether the followed link was followed to its end.
fn check_followed(book: &RuleBook) -> Result<(), Box<dyn Error>> {
    let (events, lost) = book.events();
    match events.into_iter().find(|event| matches!(event.kind, WireEventKind::Untracked { .. })) {
        Some(event) => Err(format!("the link was not followed to its end: {:?}", event.kind).into()),
        None if lost > 0 => Err(format!("{lost} events of the followed link were lost").into()),
        None => Ok(()),
    }
}

async fn ways(
    server: &ToxidHandle,
    client: &ToxiClient,
    book: &RuleBook,
    name: &str,
    direct: SocketAddr,
) -> Result<Ways, Box<dyn Error>> {
    let mut listens = Vec::new();
    for kind in ["plain", "placebo"] {
        let name = format!("{name}-{kind}");
        let spec = ProxySpec { name: name.clone(), listen: "127.0.0.1:0".into(), upstream: direct.to_string() };
        listens.push(client.create_proxy(&spec).await?.listen.parse()?);
        if kind == "placebo" {
            for stream in [Stream::Upstream, Stream::Downstream] {
                client.add_toxic(&name, stream, Toxic::Noop).await?;
            }
        }
    }
    let spec =
        ProxySpec { name: format!("{name}-followed"), listen: "127.0.0.1:0".into(), upstream: direct.to_string() };
    let inspectors = book.inspectors(Origin::of_process("api-1"), Protocol::Redis);
    let followed = server.create_proxy(&spec, Some(inspectors)).await?.listen.parse()?;
    Ok(Ways { direct, proxied: listens[0], placebo: listens[1], followed })
}

/// Serves each connection with a thread of its own, as long as the program runs.
fn serve(each: fn(TcpStream) -> std::io::Result<()>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // A client that has seen enough may break off.
            thread::spawn(move || each(socket));
        }
    });
    Ok(address)
}

fn echo_all(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut message = [0; MESSAGE_BYTES];
    loop {
        socket.read_exact(&mut message)?;
        socket.write_all(&message)?;
    }
}

/// Reads to the end, then says how much that was, as one reply.
fn count_all(mut socket: TcpStream) -> std::io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut total = 0_u64;
    loop {
        match socket.read(&mut block)? {
            0 => break,
            count => total += count as u64,
        }
    }
    socket.write_all(format!(":{total}\r\n").as_bytes())
}

fn round_trips_us(address: SocketAddr, count: usize) -> std::io::Result<Vec<f64>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    // A command, and at the same time what a reply may be, so that its echo is one.
    let sent = command(MESSAGE_BYTES);
    let mut message = [0; MESSAGE_BYTES];
    let mut trips = Vec::with_capacity(count);
    // The first tenth warms caches and the link's buffers.
    for index in 0..count + count / 10 {
        let start = Instant::now();
        socket.write_all(&sent)?;
        socket.read_exact(&mut message)?;
        if index >= count / 10 {
            trips.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(trips)
}

fn bytes_per_s(address: SocketAddr, duration: Duration) -> Result<f64, Box<dyn Error>> {
    let mut socket = TcpStream::connect(address)?;
    let block = command(BLOCK_BYTES);
    let mut sent = 0_u64;
    let start = Instant::now();
    while start.elapsed() < duration {
        socket.write_all(&block)?;
        sent += BLOCK_BYTES as u64;
    }
    socket.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer)?;
    let elapsed = start.elapsed().as_secs_f64();
    let arrived: u64 = answer.trim_start_matches(':').trim_end().parse()?;
    if arrived != sent {
        return Err(format!("{arrived} of {sent} bytes arrived").into());
    }
    Ok(arrived as f64 / elapsed)
}

/// One command of so many bytes.
fn command(bytes: usize) -> Vec<u8> {
    let of = |length: usize| format!("*2\r\n$4\r\nECHO\r\n${length}\r\n{}\r\n", "v".repeat(length)).into_bytes();
    // The line with the length is as long for all that come into question.
    let around = of(bytes).len() - bytes;
    of(bytes - around)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(
    arguments: &Arguments,
    trips_us: [f64; WAYS.len()],
    rates: [f64; WAYS.len()],
) -> Result<ExitCode, Box<dyn Error>> {
    let overhead = trips_us.map(|trip| trip - trips_us[0]);
    let kept = overhead[1..].iter().all(|overhead| *overhead <= OVERHEAD_US_MAX)
        && rates[1..3].iter().all(|rate| *rate >= BYTES_PER_S_MIN);
    println!("link       round trip µs   more µs   ratio      GB/s   ratio");
    for (way, name) in WAYS.into_iter().enumerate() {
        println!(
            "{name:<9} {:>14.1} {:>9.1} {:>7.2} {:>9.2} {:>7.2}",
            trips_us[way],
            overhead[way],
            trips_us[way] / trips_us[0],
            rates[way] / 1e9,
            rates[way] / rates[0],
        );
    }
    println!(
        "bars: at most {OVERHEAD_US_MAX} µs more in the median, at least {} GB/s where it is not followed: {}",
        BYTES_PER_S_MIN / 1e9,
        if kept { "kept" } else { "MISSED" }
    );
    let table = json!({
        "short": arguments.short,
        "round_trip_us": named(trips_us),
        "bytes_per_s": named(rates),
        "bars": { "overhead_us_max": OVERHEAD_US_MAX, "bytes_per_s_min": BYTES_PER_S_MIN },
        "kept": kept,
    });
    if let Some(folder) = arguments.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&arguments.json, format!("{table:#}\n"))?;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

fn named(values: [f64; WAYS.len()]) -> serde_json::Map<String, serde_json::Value> {
    WAYS.into_iter().map(str::to_owned).zip(values.map(serde_json::Value::from)).collect()
}
