//! The largest record that a topic takes: a dead letter must not be larger, whatever its record was.

use std::time::Duration;

use rdkafka::admin::{AdminOptions, ResourceSpecifier};

use super::{super::connection::BATCH_BYTES, Librdkafka};

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// `None` if it cannot be found out: the user may not ask (DESCRIBE_CONFIGS), or nobody answers.
pub(super) async fn max_record_bytes(cluster: &Librdkafka, topic: &str) -> Option<usize> {
    if !cluster.has_admin() {
        return None;
    }
    let admin = cluster.admin().await.ok()?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
    drop(tokio::task::spawn_blocking(move || drop(admin)));
    let described = described.ok()?.into_iter().next()?.ok()?;
    let batch: usize = described.get("max.message.bytes")?.value.as_ref()?.parse().ok()?;
    Some(batch.saturating_sub(BATCH_BYTES))
}
