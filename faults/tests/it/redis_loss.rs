//! Redis loss on a real Redis.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use nogo_faults::{
    BlastRadius, BoxFuture, ControlError, Fault, InstallError, ProofError, RedisLoss, RedisLossLimits, ServiceControl,
    Tolerance,
};
use redis::AsyncCommands;
use serde_json::Value;

use crate::private_servers::PrivateRedis;

const HOLD: Duration = Duration::from_secs(5);

fn loss(control: Arc<dyn ServiceControl>) -> RedisLoss {
    let limits = RedisLossLimits { death_ms_max: 500, restart_ms_max: 10_000 };
    RedisLoss::new(control, limits, Tolerance { goodput_ratio_min: 0.5, outage_ms_max: 3_000, recover_ms_max: 5_000 })
}

fn radius(redis: &PrivateRedis) -> BlastRadius {
    let mut radius = BlastRadius::new(HOLD);
    radius.allow_address(redis.address());
    radius
}

#[tokio::test]
async fn redis_loss_bites_and_heals() {
    let redis = Arc::new(PrivateRedis::start().await);
    let bystander = PrivateRedis::start().await;
    for server in [&*redis, &bystander] {
        let _: () = server.connection().await.expect("connect").set("k", 1).await.expect("set");
    }
    let mut fault = loss(redis.clone());
    let grant = radius(&redis).grant(&fault, HOLD).expect("inside");
    let proof = fault.install(&grant).await.expect("install");
    assert_eq!(proof.kind, "service_gone");
    assert_eq!(proof.detail["keys_lost"], 1);
    assert!(proof.detail["engine"]["pid"].is_null(), "{proof:?}");
    assert!(proof.detail["connect"].as_str().expect("refusal").contains("refused"), "{proof:?}");
    redis.connection().await.expect_err("nobody answers");
    fault.control_proof().await.expect("still gone");
    let kept: i64 = bystander.connection().await.expect("connect").get("k").await.expect("get");
    assert_eq!(kept, 1, "another server is outside the radius");

    let healed = fault.heal().await.expect("heal");
    assert_eq!(healed.detail["restarted"], true);
    assert_eq!(healed.detail["keys_first_seen"], 0);
    assert_ne!(healed.detail["run_id"], proof.detail["run_id_lost"]);
    let mut connection = redis.connection().await.expect("answers again");
    assert!(!connection.exists::<_, bool>("k").await.expect("exists"));
    let _: () = connection.set("new", 1).await.expect("set");
    assert!(matches!(fault.control_proof().await, Err(ProofError::NoHarm(_))));

    let again = fault.heal().await.expect("heal is idempotent");
    assert_eq!(again.detail["run_id"], healed.detail["run_id"]);
    assert!(connection.exists::<_, bool>("new").await.expect("exists"), "a second heal loses nothing");
    assert!(matches!(fault.install(&grant).await, Err(InstallError::Used { .. })));
}

/// Says that it killed, and did not.
struct Liar(PrivateRedis);

impl ServiceControl for Liar {
    fn name(&self) -> String {
        self.0.name()
    }
    fn address(&self) -> SocketAddr {
        self.0.address()
    }
    fn kill(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async { Ok(()) })
    }
    fn start_empty(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        self.0.start_empty()
    }
    fn is_alive(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
    fn probe(&self) -> BoxFuture<'_, Result<Value, ControlError>> {
        self.0.probe()
    }
}

#[tokio::test]
async fn an_engine_that_claims_a_kill_it_did_not_do_is_noticed() {
    let liar = Liar(PrivateRedis::start().await);
    let radius = radius(&liar.0);
    let mut fault = loss(Arc::new(liar));
    let grant = radius.grant(&fault, HOLD).expect("inside");
    let error = fault.install(&grant).await.expect_err("did not land");
    assert!(matches!(&error, InstallError::DidNotLand { reason, .. } if reason.contains("accepts")), "{error}");
    let healed = fault.heal().await.expect("nothing to heal");
    assert_eq!(healed.detail["restarted"], false);
}
