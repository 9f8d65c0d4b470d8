//! Each fault of a process: bites, heals, heals once more, and keeps its radius.
//!
//! The system's processes run on the host whichever engine runs the servers, so there is one test for both. The victims
//! are shells that leave traces of what they do, kept by the supervisor that keeps the system's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nogo_faults::{
    Action, AnyMoment, BlastRadius, BookLimits, BoxFuture, ClockApart, ControlGroup, CpuStarved, DescriptorsExhausted,
    Fault, Harm, InstallError, MemoryExhausted, Occurrence, OutsideRadius, Pattern, Place, ProcessControl,
    ProcessDrain, ProcessFreeze, ProcessKill, ProcessKillLimits, ProcessLimits, ProofError, RedisPattern, RestartStorm,
    RollingRestart, Rule, RuleBook, Struck, StruckMidRequest, Tolerance, remove_groups,
};
use nogo_harness::environment::clock_library::{clock_environment, clock_library};
use nogo_harness::environment::engine::{Engine, RedisSpec};
use nogo_harness::environment::links::Links;
use nogo_harness::environment::registration::group_prefix;
use nogo_harness::environment::supervisor::{ProcessSpec, Supervisor};
use nogo_harness::environment::system_process::SystemProcess;
use redis::AsyncCommands as _;
use tokio::time::Instant;

use crate::environment_store_faults::redis_at;
use crate::environment_world::{World, not_exercised};

const LIMIT: Duration = Duration::from_secs(20);
const LIMITS: ProcessLimits = ProcessLimits { land_ms_max: 10_000, heal_ms_max: 10_000 };
const TOLERANCE: Tolerance = Tolerance { goodput_ratio_min: 0.0, outage_ms_max: 10_000, recover_ms_max: 10_000 };
/// In which one that works leaves traces.
const SOON: Duration = Duration::from_millis(400);
/// In which it does so even where it hardly gets a turn.
const BUSY: Duration = Duration::from_secs(5);

/// Keeps shells, and a neighbour that no fault may reach.
struct Rig {
    world: World,
    supervisor: Arc<Supervisor>,
    neighbour: Arc<SystemProcess>,
}

impl Rig {
    async fn new() -> Self {
        let world = World::new();
        let (supervisor, _) = Supervisor::new(Arc::clone(&world.run), world.store.join("logs")).unwrap();
        let neighbour = supervisor.start(shell("neighbour", BEATS, Vec::new())).await.unwrap();
        Self { world, supervisor, neighbour }
    }

    async fn start(&self, name: &str, then: &str) -> Arc<SystemProcess> {
        self.supervisor.start(shell(name, then, Vec::new())).await.unwrap()
    }

    /// What `name` leaves its traces in.
    fn traces(&self, name: &str) -> PathBuf {
        self.world.run.scratch().join(name)
    }

    /// Whether the process leaves traces, however busy this machine is.
    async fn works(&self, name: &str) -> bool {
        self.works_within(name, BUSY).await
    }

    async fn works_within(&self, name: &str, limit: Duration) -> bool {
        let size = || std::fs::metadata(self.traces(name)).map_or(0, |found| found.len());
        let (before, until) = (size(), Instant::now() + limit);
        while size() == before && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        size() > before
    }

    /// Refused outside its radius, installed inside it, felt, healed, over, healed once more; the neighbour never felt it.
    async fn goes_through<H: Harm + 'static>(&self, harm: H, victims: &[&Arc<SystemProcess>], bites: impl AsyncFn()) {
        let mut fault = Struck::new(harm, TOLERANCE);
        let name = Fault::name(&fault).to_owned();
        let began = Instant::now();
        let mut radius = BlastRadius::new(LIMIT);
        radius.allow_process(self.neighbour.current_identity().unwrap());
        let refusal = radius.grant(&fault, LIMIT).expect_err("granted outside its radius");
        assert!(matches!(refusal, OutsideRadius::NotAllowed(_)), "{name}: {refusal}");
        for victim in victims {
            radius.allow_process(victim.current_identity().unwrap());
        }
        let grant = radius.grant(&fault, LIMIT).unwrap();
        let all_work = async || {
            for victim in victims {
                assert!(self.works(victim.process_name()).await, "{name}: {} does nothing", victim.process_name());
            }
        };
        all_work().await;
        let spared = self.neighbour.current_identity();
        let proof = fault.install(&grant).await.unwrap_or_else(|error| panic!("{name}: install: {error}"));
        println!("{name}: {proof:?}");
        bites().await;
        assert!(self.works("neighbour").await, "{name}: its neighbour suffers");
        fault.control_proof().await.unwrap_or_else(|error| panic!("{name}: while it stands: {error}"));
        let healed = fault.heal().await.unwrap_or_else(|error| panic!("{name}: heal: {error}"));
        println!("{name}: {healed:?}");
        all_work().await;
        let lives: Vec<_> = victims.iter().map(|victim| victim.current_identity()).collect();
        fault.heal().await.unwrap_or_else(|error| panic!("{name}: heal once more: {error}"));
        let later: Vec<_> = victims.iter().map(|victim| victim.current_identity()).collect();
        assert_eq!((lives, spared), (later, self.neighbour.current_identity()), "{name}: restarted once more");
        let over = fault.control_proof().await.expect_err("a healed fault still shows");
        assert!(matches!(over, ProofError::NoHarm(_)), "{name}: {over}");
        fault.install(&grant).await.expect_err("a used fault was installed again");
        println!("{name}: {:.1} s", began.elapsed().as_secs_f64());
    }
}

/// Leaves a trace every few milliseconds, and ends when it is asked to.
const BEATS: &str = "trap 'exit 0' TERM; while :; do echo . >>$NAME; sleep 0.01; done";

fn shell(name: &str, then: &str, mut environment: Vec<(String, String)>) -> ProcessSpec {
    environment.push(("NAME".to_owned(), name.to_owned()));
    ProcessSpec {
        name: name.to_owned(),
        program: PathBuf::from("/bin/bash"),
        arguments: vec!["-c".to_owned(), format!("echo '{{}}'; {then}")],
        environment,
        ready_limit: LIMIT,
        ready_path: None,
    }
}

fn control(process: &Arc<SystemProcess>) -> Arc<dyn ProcessControl> {
    Arc::clone(process) as Arc<dyn ProcessControl>
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_a_drain_a_storm_and_a_rolling_restart_bite_and_heal() {
    let rig = Rig::new().await;
    let (one, two) = (rig.start("one", BEATS).await, rig.start("two", BEATS).await);
    let stands_still = async || {
        // A child may have been asleep beside it, but the shell itself writes no more.
        rig.works_within("one", SOON).await;
        assert!(!rig.works_within("one", SOON).await, "it goes on");
    };

    let freeze = ProcessFreeze::new("freeze", control(&one), Arc::new(AnyMoment), LIMITS);
    let life = one.current_identity();
    rig.goes_through(freeze, &[&one], stands_still).await;
    assert_eq!(one.current_identity(), life, "a freeze ends nobody");

    let drain = ProcessDrain::new("drain", control(&one), LIMITS);
    rig.goes_through(drain, &[&one], stands_still).await;
    assert_ne!(one.current_identity(), life);
    assert_eq!(one.ending(life.unwrap()), None, "another incarnation came after it");

    let storm = RestartStorm::new("storm", control(&one), Duration::from_millis(20), LIMITS);
    let life = one.current_identity();
    let bites = async || {
        let (mut lives, until) = (vec![life], Instant::now() + LIMIT);
        while lives.len() < 4 {
            assert!(Instant::now() < until, "only {lives:?}");
            let now = one.current_identity();
            if !lives.contains(&now) {
                lives.push(now);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    rig.goes_through(storm, &[&one], bites).await;

    let lives = [one.current_identity(), two.current_identity()];
    let rolling = RollingRestart::new("rolling", vec![control(&one), control(&two)], LIMITS);
    let bites = async || assert_ne!(one.current_identity().filter(|now| now.alive()), lives[0]);
    rig.goes_through(rolling, &[&one, &two], bites).await;
    assert!(one.current_identity() != lives[0] && two.current_identity() != lives[1], "one was left out of the round");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_drain_did_not_land_and_is_started_again() {
    let rig = Rig::new().await;
    let deaf = rig.start("deaf", "trap '' TERM; while :; do echo . >>$NAME; sleep 0.01; done").await;
    assert!(rig.works("deaf").await, "it is deaf once it works");
    let limits = ProcessLimits { land_ms_max: 200, ..LIMITS };
    let mut drain = Struck::new(ProcessDrain::new("drain", control(&deaf), limits), TOLERANCE);
    let mut radius = BlastRadius::new(LIMIT);
    let life = deaf.current_identity().unwrap();
    radius.allow_process(life);
    let grant = radius.grant(&drain, LIMIT).unwrap();
    let error = drain.install(&grant).await.expect_err("a process that ignores SIGTERM drained");
    assert!(error.to_string().contains("runs on after SIGTERM"), "{error}");
    drain.heal().await.unwrap();
    assert!(deaf.runs() && deaf.current_identity() != Some(life));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_memory_and_of_descriptors_bite_and_heal() {
    let rig = Rig::new().await;
    let grows = "y=$(printf '%0100000d' 0); while :; do x=$x$y; echo . >>$NAME; sleep 0.05; done";
    let grows = rig.start("grows", grows).await;
    let life = grows.current_identity();
    let burdened = Arc::new(AtomicUsize::new(0));
    let burdens = Arc::clone(&burdened);
    let burden = move || -> BoxFuture<'static, ()> {
        burdens.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    };
    let memory = MemoryExhausted::new("memory", control(&grows), Arc::new(burden), LIMITS);
    let bites = async || assert!(!grows.runs(), "it grows on");
    rig.goes_through(memory, &[&grows], bites).await;
    assert_ne!(grows.current_identity(), life);
    assert!(burdened.load(Ordering::Relaxed) > 0, "it is given what it needs memory for");
    grows.kill_now().await.unwrap();

    let opens = "while :; do read -r line </etc/passwd && echo . >>$NAME; sleep 0.01; done";
    let opens = rig.start("opens", opens).await;
    let life = opens.current_identity();
    let descriptors = DescriptorsExhausted::new("descriptors", control(&opens), LIMITS);
    let bites = async || {
        rig.works_within("opens", SOON).await;
        assert!(!rig.works_within("opens", SOON).await, "it opens files");
    };
    rig.goes_through(descriptors, &[&opens], bites).await;
    assert_eq!(opens.current_identity(), life, "it lives on without");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_one_core_bites_and_heals() {
    if let Err(error) = ControlGroup::can_be_made() {
        not_exercised(None, &error.to_string());
        return;
    }
    let rig = Rig::new().await;
    let busy = rig.start("busy", "while :; do echo . >>$NAME; done").await;
    let group = format!("{}f1", group_prefix(rig.world.run.run_id()));
    let starved = CpuStarved::new("starved", control(&busy), group.clone(), 10, LIMITS);
    let pid = busy.current_identity().unwrap().pid;
    let bites = async || {
        let (before, began) = (cpu_ticks(pid), Instant::now());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let got = cpu_ticks(pid) - before;
        // A hundred ticks a second; the cap allows ten of them.
        assert!(got <= 25, "{got} ticks of processor time in {:.1} s", began.elapsed().as_secs_f64());
    };
    rig.goes_through(starved, &[&busy], bites).await;
    assert_eq!(remove_groups(&group).unwrap(), Vec::<PathBuf>::new(), "the group was left");
}

/// User and system time of a process, in ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_apart_bites_and_heals() {
    let library = match clock_library() {
        Ok(library) => library,
        Err(error) => {
            not_exercised(None, &format!("{error:#}"));
            return;
        }
    };
    let rig = Rig::new().await;
    let file = rig.traces("clock");
    std::fs::write(&file, nogo_faults::CLOCK_IS_RIGHT).unwrap();
    // The shell keeps the library's file; each `date` reads it.
    let tells = "while :; do date +%s >>$NAME; done";
    let spec = shell("tells", tells, clock_environment(&library, &file));
    let tells = rig.supervisor.start(spec).await.unwrap();
    let clock = ClockApart::new("clock", control(&tells), file.clone(), 3_600, LIMITS);
    let traces = rig.traces("tells");
    assert!(told_s_ahead(&traces).await.abs() <= 2);
    let bites = async || {
        let ahead_s = told_s_ahead(&traces).await;
        assert!((3_598..=3_602).contains(&ahead_s), "{ahead_s} s ahead");
    };
    rig.goes_through(clock, &[&tells], bites).await;
    assert!(told_s_ahead(&traces).await.abs() <= 2);
    let pid = tells.current_identity().unwrap().pid;
    tells.kill_now().await.unwrap();
    assert!(!Path::new(&format!("/dev/shm/faketime_shm_{pid}")).exists(), "the library's memory was left");
}

/// How far ahead the last time is that a process has told.
async fn told_s_ahead(traces: &Path) -> i64 {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let text = std::fs::read_to_string(traces).unwrap();
    let told: i64 = text.lines().last().unwrap().parse().unwrap();
    told - jiff::Timestamp::now().as_second()
}

/// Counts in Redis, one trace for each answer, and ends when it is asked to.
const COUNTS: &str = r"trap 'exit 0' TERM; exec 3<>/dev/tcp/127.0.0.1/$PORT
    printf '*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n' ${#PASSWORD} $PASSWORD >&3; read -r line <&3
    while printf '*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n' >&3 && read -r line <&3; do echo . >>$NAME; sleep 0.01; done";

/// Holds every answer to that command of `process`.
fn held(name: &str, process: &str, command: &str) -> Rule {
    Rule {
        name: name.to_owned(),
        role: Some(process.to_owned()),
        pattern: Pattern::Redis(RedisPattern { command: Some(command.to_owned()), ..RedisPattern::default() }),
        k: Occurrence::EVERY,
        place: Place::BeforeClient,
        action: Action::Hold { ms: None },
    }
}

/// Ended, asked to end and stopped between what the server did and what the process heard; healed, nothing is held.
async fn struck_mid_request(engine: &dyn Engine) {
    let rig = Rig::new().await;
    let server = engine.start_redis(&RedisSpec::default()).await.unwrap();
    let book = RuleBook::new(std::time::Instant::now(), BookLimits::default());
    let links = Links::start(1, Some(book.clone())).await.unwrap();
    let port = links.open("counts", "redis", server.address()).await.unwrap().port();
    let environment =
        vec![("PORT".to_owned(), port.to_string()), ("PASSWORD".to_owned(), server.password().to_owned())];
    let counts = rig.supervisor.start(shell("counts", COUNTS, environment)).await.unwrap();
    let faults: [(&str, Box<dyn Fault>); 3] = [
        (
            "crash",
            Box::new(ProcessKill::new(control(&counts), Arc::new(AnyMoment), ProcessKillLimits::default(), TOLERANCE)),
        ),
        ("drain", Box::new(Struck::new(ProcessDrain::new("drain", control(&counts), LIMITS), TOLERANCE))),
        (
            "freeze",
            Box::new(Struck::new(
                ProcessFreeze::new("freeze", control(&counts), Arc::new(AnyMoment), LIMITS),
                TOLERANCE,
            )),
        ),
    ];
    for (name, fault) in faults {
        assert!(rig.works("counts").await, "{name}: it counts nothing");
        let life = counts.current_identity();
        book.plan(&held(name, "counts", "INCR")).unwrap();
        book.install(name).unwrap();
        let mut fault = StruckMidRequest::new(fault, book.clone(), name, 5_000);
        let mut radius = BlastRadius::new(LIMIT);
        radius.allow_process(rig.neighbour.current_identity().unwrap());
        radius.grant(&fault, LIMIT).expect_err("granted outside its radius");
        radius.allow_process(life.unwrap());
        let proof = fault.install(&radius.grant(&fault, LIMIT).unwrap()).await.unwrap();
        println!("{name}: {proof:?}");
        assert_eq!(proof.detail["mid_request"]["kept_from"], "the process");
        assert!(book.held(name) > 0 || name != "freeze", "{name}: nothing is held");
        let heard = || std::fs::read_to_string(rig.traces("counts")).unwrap().lines().count();
        let (before, counted) = (heard(), redis_at(&server.url()).await.get::<_, usize>("n").await.unwrap());
        assert!(counted > before, "{name}: it has heard of all {counted} that the server did");
        assert!(!rig.works_within("counts", SOON).await, "{name}: it goes on");
        assert!(rig.works("neighbour").await, "{name}: its neighbour suffers");
        fault.control_proof().await.unwrap();
        fault.heal().await.unwrap();
        assert!(rig.works("counts").await, "{name}: healed, and it does not count");
        assert_eq!((book.held(name), counts.current_identity() == life), (0, name == "freeze"), "{name}");
        fault.heal().await.unwrap();
        assert!(matches!(fault.control_proof().await, Err(ProofError::NoHarm(_))), "{name}");
    }

    let life = counts.current_identity().unwrap();
    book.plan(&held("never", "counts", "GETDEL")).unwrap();
    book.install("never").unwrap();
    let drain = Box::new(Struck::new(ProcessDrain::new("drain", control(&counts), LIMITS), TOLERANCE));
    let mut fault = StruckMidRequest::new(drain, book.clone(), "never", 200);
    let mut radius = BlastRadius::new(LIMIT);
    radius.allow_process(life);
    let missed = fault.install(&radius.grant(&fault, LIMIT).unwrap()).await.expect_err("it was never caught");
    assert!(matches!(missed, InstallError::ConditionNotMet { .. }), "{missed}");
    assert!(life.alive(), "it was struck all the same");
    drop(fault);
    assert!(book.record("never").unwrap().removed_ns.is_some(), "the rule was left behind");
    links.close().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn process_faults_strike_in_the_middle_of_a_request_or_not_at_all() {
    struck_mid_request(&World::new().process_engine()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_faults_strike_in_the_middle_of_a_request_or_not_at_all() {
    let world = World::new();
    if let Some(engine) = world.docker_engine().await {
        struck_mid_request(&engine).await;
    }
}
