//! A whole forecast, from the request to its result in the client's hands, against the engine alone: CPU time of
//! everything that takes part (instance, worker, PostgreSQL, Redis) for each forecast.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
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
/// Longest wait for a block's forecasts.
const DRAIN_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn measure(setting: &Setting) -> anyhow::Result<Vec<Line>> {
    let (blocks, per_block) = setting.pick((7, 400), (3, 60));
    let input = inputs::scenario(MONTHS, LINES / 2, LINES / 2, None);
    let bed = Bed::start(&setting.binary)?;
    bed.seed(CUSTOMERS)?;
    let mut admin = bed.admin().await;
    sqlx::query("UPDATE app.scenarios SET input = $1").bind(&input).execute(&mut admin).await?;
    let pro: Vec<Customer> =
        customers::sign_in(&mut admin, CUSTOMERS).await?.into_iter().filter(|customer| customer.is_pro).collect();
    ensure!(!pro.is_empty(), "nobody has the PRO plan");
    bed.analyze().await?;
    let limits = ["--rate-user-per-s", "1000000", "--rate-address-per-s", "1000000"];
    let (api, address) = bed.serve("api-1", &limits)?;
    let worker = bed.work("worker-1", 2)?;
    let system = [api.pid(), worker.pid(), bed.postgres.pid(), bed.redis.pid()];

    let mut connection = Connection::open(address).await?;
    let expected = run_block(&mut connection, &mut admin, &pro, 20).await.context("warm up")?;
    ensure!(
        expected.result == forecastle_forecast::run(&input, 1, &|| false).context("compute")?.result,
        "the system's result is not the engine's"
    );
    let (mut ours, mut theirs, mut walls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..blocks {
        let before = cpu_seconds(&system);
        let started = Instant::now();
        run_block(&mut connection, &mut admin, &pro, per_block).await?;
        walls.push(f64::from(per_block) / started.elapsed().as_secs_f64());
        ours.push((cpu_seconds(&system) - before) * 1e3 / f64::from(per_block));
        theirs.push(engine_alone(&input, per_block)? * 1e3 / f64::from(per_block));
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    let line = Line::at_most("forecast", "a whole forecast against the engine alone", median(&ratios), 4.0, 2.0);
    let figures = |values: &[f64]| format!("{:.2} ms", median(values));
    Ok(vec![line.figures(figures(&ours), figures(&theirs)).note(format!(
        "CPU time a forecast, {MONTHS} months, {} revenue and {} cost lines, {blocks} blocks of {per_block} each in turn, \
         medians; ours: one instance, one worker, PostgreSQL and Redis together, for POST, queue, computing, \
         recording and GET of the result; the engine: input's JSON to result and hash; {:.0} forecasts a second",
        LINES / 2,
        LINES / 2,
        median(&walls)
    ))])
}

/// What a client finally holds.
struct Last {
    result: Value,
}

/// Asks for `count` forecasts, waits until the queue is empty, and reads every result.
async fn run_block(
    connection: &mut Connection,
    admin: &mut sqlx::PgConnection,
    pro: &[Customer],
    count: u32,
) -> anyhow::Result<Last> {
    let mut asked: Vec<(Arc<Call>, Uuid)> = Vec::new();
    for customer in pro.iter().cycle().take(count as usize) {
        let body = json!({ "scenario_id": customer.scenario });
        let call = Call::send_json(Method::POST, "/v1/forecasts", &body).once().signed_by(customer);
        let answer = connection.call(&call).await?;
        ensure!(answer.status == StatusCode::ACCEPTED, "a request was answered {}", answer.status);
        let id: Uuid = answer.json()?["id"].as_str().context("a forecast has an id")?.parse()?;
        asked.push((Arc::new(Call::get(format!("/v1/forecasts/{id}")).signed_by(customer)), id));
    }
    let end = Instant::now() + DRAIN_MAX;
    while queue_depth(admin).await? > 0 {
        ensure!(Instant::now() < end, "the queue did not drain within {DRAIN_MAX:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut last = Value::Null;
    for (call, id) in asked {
        let answer = connection.call(&call).await?;
        let mut forecast = answer.json()?;
        ensure!(forecast["state"] == "succeeded", "forecast {id} is {}", forecast["state"]);
        last = forecast["result"].take();
    }
    Ok(Last { result: last })
}

fn engine_alone(input: &Value, count: u32) -> anyhow::Result<f64> {
    // As the worker gets it: text from the database.
    let text = input.to_string();
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let started = now();
    for _ in 0..count {
        let input: Value = serde_json::from_str(&text)?;
        std::hint::black_box(forecastle_forecast::run(&input, 1, &|| false).context("compute")?);
    }
    Ok(now() - started)
}
