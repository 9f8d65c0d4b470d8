//! A whole forecast, from the request to its result in the client's hands, against the engine alone: CPU time of
//! everything that takes part (instance, worker, PostgreSQL, Redis) for each forecast.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Setting;
use crate::bed::{Bed, queue_depth};
use crate::client::{Call, Connection};
use crate::customers::{self, Customer};
use crate::inputs;
use crate::process::cpu_seconds;
use crate::report::{Line, median};

const MONTHS: u32 = 36;
/// Half of them revenue, half costs.
const LINES: u32 = 8;
const CUSTOMERS: u32 = 100;
/// Who ask at once, each for one forecast after the other.
const CONNECTIONS: usize = 8;
/// Of the worker: its default.
const JOBS_AT_ONCE: u32 = 8;
/// Longest wait for a block's forecasts.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks at the queue, which PostgreSQL answers and which count as its work.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn measure(setting: &Setting) -> anyhow::Result<Vec<Line>> {
    let (blocks, per_block) = setting.pick((14, 200), (3, 60));
    let input = inputs::scenario(MONTHS, LINES / 2, LINES / 2, None);
    let bed = Bed::start(&setting.binary)?;
    bed.seed(CUSTOMERS)?;
    let mut admin = bed.admin().await;
    sqlx::query("UPDATE app.scenarios SET input = $1").bind(&input).execute(&mut admin).await?;
    let pro: Vec<Customer> =
        customers::sign_in(&mut admin, CUSTOMERS).await?.into_iter().filter(|customer| customer.is_pro).collect();
    ensure!(!pro.is_empty(), "nobody has the PRO plan");
    let limits = ["--rate-user-per-s", "1000000", "--rate-address-per-s", "1000000"];
    let (api, address) = bed.serve("api-1", &limits)?;
    let worker = bed.work("worker-1", JOBS_AT_ONCE)?;
    let system = [("instance", api.pid()), ("worker", worker.pid())];
    let system = [system[0], system[1], ("PostgreSQL", bed.postgres.pid()), ("Redis", bed.redis.pid())];

    let pro = Arc::new(pro);
    let result = run_block(address, &mut admin, &pro, 40).await.context("warm up")?;
    // After the first of each kind: a table that was empty would be planned for as empty.
    bed.analyze().await?;
    ensure!(
        result == forecastle_forecast::run(&input, 1, &|| false).context("compute")?.result,
        "the system's result is not the engine's"
    );
    let (mut ours, mut theirs, mut walls, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..blocks {
        let before = system.map(|(_, pid)| cpu_seconds(&[pid]));
        let started = Instant::now();
        run_block(address, &mut admin, &pro, per_block).await?;
        walls.push(f64::from(per_block) / started.elapsed().as_secs_f64());
        let after = system.map(|(_, pid)| cpu_seconds(&[pid]));
        let each_ms: [f64; 4] = std::array::from_fn(|part| (after[part] - before[part]) * 1e3 / f64::from(per_block));
        ours.push(each_ms.iter().sum());
        shares.push(each_ms);
        theirs.push(engine_alone(&input, per_block)? * 1e3 / f64::from(per_block));
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    let line = Line::at_most("forecast", "a whole forecast against the engine alone", median(&ratios), 4.0, 2.0);
    let figures = |values: &[f64]| format!("{:.2} ms", median(values));
    let share = |part: usize| median(&shares.iter().map(|each: &[f64; 4]| each[part]).collect::<Vec<_>>());
    let shares: Vec<String> =
        system.iter().enumerate().map(|(part, (name, _))| format!("{name} {:.2}", share(part))).collect();
    Ok(vec![
        line.figures(figures(&ours), figures(&theirs))
            .note(format!(
                "CPU time a forecast, {MONTHS} months, {} revenue and {} cost lines, {blocks} blocks of {per_block} each in \
                 turn, medians; ours: one instance, one worker, PostgreSQL and Redis together, for POST, queue, \
                 computing, recording and GET of the result, over {CONNECTIONS} connections; the engine: input's JSON \
                 to result and hash, on every processor at once; {:.0} forecasts a second",
                LINES / 2,
                LINES / 2,
                median(&walls)
            ))
            .note(format!("ms of each: {}", shares.join(", "))),
    ])
}

/// Asks for `count` forecasts, waits until the queue is empty, and reads every result; the last one.
async fn run_block(
    address: SocketAddr,
    admin: &mut sqlx::PgConnection,
    pro: &Arc<Vec<Customer>>,
    count: u32,
) -> anyhow::Result<Value> {
    let mut asking = JoinSet::new();
    for lane in 0..CONNECTIONS {
        let (pro, numbers) = (Arc::clone(pro), (lane..count as usize).step_by(CONNECTIONS));
        asking.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut asked = Vec::new();
            for number in numbers {
                let customer = &pro[number % pro.len()];
                let body = json!({ "scenario_id": customer.scenario });
                let call = Call::send_json(Method::POST, "/v1/forecasts", &body).once().signed_by(customer);
                let answer = connection.call(&call).await?;
                ensure!(answer.status == StatusCode::ACCEPTED, "a request was answered {}", answer.status);
                let id: Uuid = answer.json()?["id"].as_str().context("a forecast has an id")?.parse()?;
                asked.push(Call::get(format!("/v1/forecasts/{id}")).signed_by(customer));
            }
            anyhow::Ok((connection, asked))
        });
    }
    let mut all_asked = Vec::new();
    while let Some(asked) = asking.join_next().await {
        all_asked.push(asked??);
    }
    let end = Instant::now() + DRAIN_MAX;
    while queue_depth(admin).await? > 0 {
        ensure!(Instant::now() < end, "the queue did not drain within {DRAIN_MAX:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let mut reading = JoinSet::new();
    for (mut connection, asked) in all_asked {
        reading.spawn(async move {
            let mut last = Value::Null;
            for call in asked {
                let mut forecast = connection.call(&call).await?.json()?;
                ensure!(forecast["state"] == "succeeded", "{} is {}", call.path, forecast["state"]);
                last = forecast["result"].take();
            }
            anyhow::Ok(last)
        });
    }
    let mut last = Value::Null;
    while let Some(read) = reading.join_next().await {
        last = read??;
    }
    Ok(last)
}

/// CPU seconds of `count` forecasts, shared among as many threads as there are processors: what they are compared with
/// runs on all of them, and on a shared host one processor may be half as fast as the other at any moment.
fn engine_alone(input: &Value, count: u32) -> anyhow::Result<f64> {
    // As the worker gets it: text from the database.
    let text = input.to_string();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = u32::try_from(threads).unwrap_or(1).clamp(1, count.max(1));
    let of_one_thread = |share: u32| -> anyhow::Result<f64> {
        let now = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
        };
        let started = now();
        for _ in 0..share {
            let input: Value = serde_json::from_str(&text)?;
            std::hint::black_box(forecastle_forecast::run(&input, 1, &|| false).context("compute")?);
        }
        Ok(now() - started)
    };
    std::thread::scope(|scope| {
        let shares = (0..threads).map(|thread| count / threads + u32::from(thread < count % threads));
        let running: Vec<_> = shares.map(|share| scope.spawn(move || of_one_thread(share))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("an engine's thread panicked"))?)
            .sum()
    })
}
