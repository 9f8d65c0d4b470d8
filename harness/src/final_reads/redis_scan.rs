//! Every key and value in Redis, searched for marks, summed by kind of key and tenant.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use nogo_invariants::Canaries;
use nogo_invariants::final_state::{RedisFinding, TenantRow};

/// Keys asked for at once.
const BATCH: usize = 200;

/// Searches all of Redis at `redis_url`. Keys and values are both searched; values that are no strings are read by type.
///
/// # Errors
/// Where Redis cannot be read.
pub async fn scan_redis(
    redis_url: &str,
    canaries: &Canaries,
    tenants: &[TenantRow],
) -> anyhow::Result<Vec<RedisFinding>> {
    let client = redis::Client::open(redis_url).context("read the redis address")?;
    let mut connection = client.get_multiplexed_async_connection().await.context("connect to redis")?;
    let labels: BTreeMap<&str, &str> =
        tenants.iter().map(|tenant| (tenant.tenant_id.as_str(), tenant.label.as_str())).collect();
    let mut sums: BTreeMap<(String, Option<String>), (BTreeSet<String>, u64)> = BTreeMap::new();
    let mut seen: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut cursor: u64 = 0;
    loop {
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("COUNT")
            .arg(BATCH)
            .query_async(&mut connection)
            .await
            .context("scan redis")?;
        for key in keys.into_iter().filter(|key| seen.insert(key.clone())) {
            let value = read_value(&mut connection, &key).await?;
            let mut text = key.clone();
            text.push(b'\n');
            text.extend_from_slice(&value);
            let (kind, tenant) = kind_and_tenant(&String::from_utf8_lossy(&key));
            let label = tenant.and_then(|id| labels.get(id.as_str()).map(|label| (*label).to_owned()));
            let (owners, count) = sums.entry((kind, label)).or_default();
            owners.extend(canaries.search(&text).owners.into_keys());
            *count += 1;
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let found = sums.into_iter().map(|((key_kind, tenant), (owners, keys))| RedisFinding {
        key_kind,
        tenant,
        owners_found: owners.into_iter().collect(),
        keys,
    });
    Ok(found.collect())
}

async fn read_value(connection: &mut redis::aio::MultiplexedConnection, key: &[u8]) -> anyhow::Result<Vec<u8>> {
    let kind: String = redis::cmd("TYPE").arg(key).query_async(connection).await.context("read a key's type")?;
    let mut command = match kind.as_str() {
        "string" => redis::cmd("GET"),
        "hash" => redis::cmd("HGETALL"),
        "set" => redis::cmd("SMEMBERS"),
        "list" => redis::cmd("LRANGE"),
        "zset" => redis::cmd("ZRANGE"),
        // It expired between two commands.
        _ => return Ok(Vec::new()),
    };
    command.arg(key);
    if matches!(kind.as_str(), "list" | "zset") {
        command.arg(0).arg(-1);
    }
    if kind == "string" {
        let value: Option<Vec<u8>> = command.query_async(connection).await.context("read a value")?;
        return Ok(value.unwrap_or_default());
    }
    let values: Vec<Vec<u8>> = command.query_async(connection).await.context("read a value")?;
    Ok(values.join(&b'\n'))
}

/// `t:{tenant}:scenario:{id}` is a `scenario` of that tenant; `rl:u:{user}` is an `rl:u` of nobody.
fn kind_and_tenant(key: &str) -> (String, Option<String>) {
    let parts: Vec<&str> = key.split(':').collect();
    match parts.as_slice() {
        ["t", tenant, kind, ..] => ((*kind).to_owned(), Some((*tenant).to_owned())),
        ["rl", kind, ..] => (format!("rl:{kind}"), None),
        [kind, ..] => ((*kind).to_owned(), None),
        [] => (String::new(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_key_names_tenant_and_kind() {
        assert_eq!(kind_and_tenant("t:abc:scenario:1"), ("scenario".to_owned(), Some("abc".to_owned())));
        assert_eq!(kind_and_tenant("rl:u:7"), ("rl:u".to_owned(), None));
    }
}
