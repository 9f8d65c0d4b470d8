//! Read a scenario: token, session (in Redis, as in production), limiter and row-level security, against a bare
//! handler with the same query. Both are processes of their own, asked in turn by the same generator.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::header::{HeaderName, HeaderValue};

use super::Setting;
use crate::bed::Bed;
use crate::client::Call;
use crate::closed_loop::{Block, block};
use crate::customers;
use crate::process::{Process, cpu_seconds};
use crate::reference_server::TENANT_HEADER;
use crate::report::{Line, median};

/// Whether scenarios are kept in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    On,
    Off,
}

const CONNECTIONS: usize = 32;
const CUSTOMERS: u32 = 256;

pub(crate) async fn measure(setting: &Setting, cache: Cache) -> anyhow::Result<Vec<Line>> {
    let (blocks, block_time) = setting.pick((7, Duration::from_secs(4)), (3, Duration::from_secs(1)));
    let bed = Bed::start(&setting.binary)?;
    bed.seed(CUSTOMERS)?;
    let signed_in = customers::sign_in(&mut bed.admin().await, CUSTOMERS).await?;
    bed.analyze().await?;
    let mut calls = Vec::new();
    for customer in &signed_in {
        // Both columns are sent the same bytes; each uses what it understands.
        let tenant = HeaderValue::from_str(&customer.tenant.to_string())?;
        let call = Call::get(format!("/v1/scenarios/{}", customer.scenario)).signed_by(customer);
        calls.push(call.header(HeaderName::from_static(TENANT_HEADER), tenant));
    }
    let calls = Arc::new(calls);
    let cache_ttl_ms = if cache == Cache::On { "300000" } else { "0" };
    let limits = ["--rate-user-per-s", "1000000", "--rate-address-per-s", "1000000", "--cache-ttl-ms", cache_ttl_ms];
    let (api_process, api) = bed.serve("api-1", &limits)?;
    let (reference_process, reference) = start_reference(&bed)?;
    let (postgres, redis) = (bed.postgres.pid(), bed.redis.pid());
    let our_cpu = || [api_process.pid(), postgres, redis].map(|pid| cpu_seconds(&[pid]));
    let their_cpu = || [reference_process.pid(), postgres].map(|pid| cpu_seconds(&[pid]));

    for address in [api, reference] {
        block(address, &calls, CONNECTIONS, block_time / 2).await.context("warm up")?;
    }
    let (mut ours, mut theirs): (Vec<Block>, Vec<Block>) = (Vec::new(), Vec::new());
    let (mut our_us, mut their_us) = (Vec::new(), Vec::new());
    for _ in 0..blocks {
        let before = our_cpu();
        ours.push(block(api, &calls, CONNECTIONS, block_time).await.context("ask Forecastle")?);
        our_us.push(each_us(&before, &our_cpu(), &ours));
        let before = their_cpu();
        theirs.push(block(reference, &calls, CONNECTIONS, block_time).await.context("ask the reference")?);
        their_us.push(each_us(&before, &their_cpu(), &theirs));
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a.per_second / b.per_second).collect();
    let rate = |blocks: &[Block]| median(&blocks.iter().map(|b| b.per_second).collect::<Vec<_>>());
    let p95 = |blocks: &[Block]| median(&blocks.iter().map(|b| b.p95_ms).collect::<Vec<_>>());
    let line = match cache {
        Cache::Off => Line::at_least("read", "read a scenario, cache off", median(&ratios), 0.5, 0.8),
        Cache::On => Line::at_least("cached-read", "read a scenario, cache on", median(&ratios), 1.0, 2.0),
    };
    let figures = |blocks: &[Block]| format!("{:.0} /s, p95 {:.1} ms", rate(blocks), p95(blocks));
    let kept = if cache == Cache::On { "scenarios in Redis too" } else { "scenarios from PostgreSQL each time" };
    Ok(vec![line.figures(figures(&ours), figures(&theirs)).note(format!(
        "throughput at {CONNECTIONS} connections, {blocks} blocks of {block_time:?} each in turn, medians; ours: token, \
         session in Redis as in production, both limiters, row-level security, {kept}; {CUSTOMERS} customers; block \
         ratios {}",
        ratios.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ")
    ))
    .note(format!(
        "CPU µs a request: instance {:.0}, PostgreSQL {:.0}, Redis {:.0}; reference {:.0}, PostgreSQL {:.0}",
        part(&our_us, 0),
        part(&our_us, 1),
        part(&our_us, 2),
        part(&their_us, 0),
        part(&their_us, 1)
    ))])
}

/// What each request of the last block cost each process, µs.
fn each_us<const N: usize>(before: &[f64; N], after: &[f64; N], blocks: &[Block]) -> [f64; N] {
    let requests = blocks.last().map_or(1, |block| block.requests.max(1)) as f64;
    std::array::from_fn(|process| (after[process] - before[process]) * 1e6 / requests)
}

/// The median of one process.
fn part<const N: usize>(blocks: &[[f64; N]], process: usize) -> f64 {
    median(&blocks.iter().map(|block| block[process]).collect::<Vec<_>>())
}

fn start_reference(bed: &Bed) -> anyhow::Result<(Process, SocketAddr)> {
    let this = std::env::current_exe().context("find this program")?;
    let arguments = ["reference", "--database-url", &bed.postgres.url_of("forecastle_read")].map(str::to_owned);
    let (process, line) = Process::start("reference", Path::new(&this), &arguments)?;
    let address = line["address"].as_str().context("the line has an address")?.parse().context("read its address")?;
    Ok((process, address))
}
