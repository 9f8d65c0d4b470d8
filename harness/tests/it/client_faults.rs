//! Each fault of clients in the whole system, as in a run: refused outside its radius, felt by the APIs, healed, over.

use std::sync::Arc;
use std::time::Duration;

use nogo_faults::catalogue::Family;
use nogo_faults::{BlastRadius, OutsideRadius, ProcessIdentity, ProofError, catalogue};
use nogo_harness::environment::system_process::SystemProcess;
use nogo_harness::nemesis::planting::Planted;
use nogo_harness::run::books::Share;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::system_rig::{Case, Ground, under_load};

const TENANTS: usize = 60;
const HOLD: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn cases() -> Vec<Case> {
    let rows = catalogue::all().filter(|row| catalogue::family_of(row) == Family::Client);
    let cases = rows.enumerate().map(|(index, row)| {
        let target = row.targets[0];
        Case { row, target, number: index + 1, share: Share::BEFORE }
    });
    cases.collect()
}

/// Looks until the proof holds, the effect's or the recovery's.
async fn seen(planted: &mut Planted, recovered: bool, limit: Duration) -> Result<String, String> {
    let end = Instant::now() + limit;
    loop {
        let found = if recovered { planted.probe.recovery().await } else { planted.probe.effect().await };
        if found.holds {
            return Ok(found.what);
        }
        if Instant::now() >= end {
            return Err(found.what);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn goes_through(ground: &Ground<'_>, case: Case) {
    let name = case.row.name;
    let mut planted = ground.planted(case).await;
    let refusal = BlastRadius::new(HOLD).grant(planted.fault.as_ref(), HOLD).expect_err("granted outside its radius");
    assert!(matches!(refusal, OutsideRadius::NotAllowed(_)), "{name}: {refusal}");
    let grant = planted.radius.grant(planted.fault.as_ref(), HOLD).unwrap_or_else(|error| panic!("{name}: {error}"));
    let effect_limit = Duration::from_millis(ground.experiment.limits.effect_ms);
    // A server that is no API of the run: nobody of the crowd asks it anything.
    let bystander = TcpListener::bind("127.0.0.1:0").await.unwrap();

    let (apis, workers) = lives(ground);
    planted.fault.install(&grant).await.unwrap_or_else(|error| panic!("{name}: install: {error}"));
    let felt = seen(&mut planted, false, effect_limit).await;
    let felt = felt.unwrap_or_else(|last| panic!("{name}: not felt within {effect_limit:?}: {last}"));
    planted.fault.control_proof().await.unwrap_or_else(|error| panic!("{name}: while it stands: {error}"));

    let healed = planted.fault.heal().await.unwrap_or_else(|error| panic!("{name}: heal: {error}"));
    let counted = |what: &str| healed.detail[what].as_u64().unwrap_or_else(|| panic!("{name}: {healed:?}"));
    assert_eq!(counted("offered_by_clients"), counted("done_by_clients") + counted("dropped_by_clients"), "{name}");
    let recover_limit = Duration::from_millis(case.row.tolerance.recover_ms_max);
    let over = seen(&mut planted, true, recover_limit).await;
    let over = over.unwrap_or_else(|last| panic!("{name}: not over within {recover_limit:?}: {last}"));
    planted.fault.heal().await.unwrap_or_else(|error| panic!("{name}: heal once more: {error}"));
    let still = seen(&mut planted, true, recover_limit).await;
    assert!(still.is_ok(), "{name}: after healing once more: {still:?}");
    let harm = planted.fault.control_proof().await.expect_err("a healed fault still shows");
    assert!(matches!(harm, ProofError::NoHarm(_)), "{name}: {harm}");
    planted.fault.install(&grant).await.expect_err("a used fault was installed again");
    assert!(nobody_asked(&bystander).await, "{name}: a stranger's server was asked");
    let (apis_now, workers_now) = lives(ground);
    let restarted = apis.iter().zip(&apis_now).filter(|(before, now)| before != now).count();
    assert_eq!(restarted, if name == "client-herd" { apis.len() } else { 0 }, "{name}: restarted APIs");
    assert_eq!(workers, workers_now, "{name}: a worker was restarted");
    println!("{name}: {felt}; after it: {over}");
}

/// Which incarnations of the APIs and of the workers run.
fn lives(ground: &Ground<'_>) -> (Vec<Option<ProcessIdentity>>, Vec<Option<ProcessIdentity>>) {
    let of = |processes: &[Arc<SystemProcess>]| processes.iter().map(|process| process.current_identity()).collect();
    (of(ground.prepared.topology.apis()), of(ground.prepared.topology.workers()))
}

/// Whether the first to connect to this server is who asks here.
async fn nobody_asked(server: &TcpListener) -> bool {
    let own = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
    let (_, first) = server.accept().await.unwrap();
    first == own.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_each_crowd_of_clients_bites_and_is_called_off() {
    let body = async |ground: &Ground<'_>| {
        for case in ground.cases.clone() {
            goes_through(ground, case).await;
        }
    };
    let ((), load) = under_load(cases(), TENANTS, body).await;
    assert!(load.operations > 1_000, "{load:?}");
}
