//! Logs, traces and metrics, exported as the host configures them.
//!
//! The signals are defined in [`calls`], [`commands`], [`connections`], [`cache`], [`watching`] and
//! [`process`], and listed in docs/telemetry.md; [`logging`] and [`export`] are responsible for their
//! destinations. Nothing is computed for a signal that the host does not export, and no signal contains a
//! key, a bucket name or a value.

pub(crate) mod cache;
pub(crate) mod calls;
pub(crate) mod commands;
pub(crate) mod connections;
pub(crate) mod error_type;
pub(crate) mod export;
pub(crate) mod log_throttle;
pub(crate) mod logging;
pub(crate) mod process;
pub(crate) mod scope;
pub(crate) mod watching;

use std::future::Future;

use wasmcloud_provider_sdk::HostData;

use crate::telemetry::export::Export;

/// Runs `work` with logs, traces and metrics set up from the host data; buffered signals are written and
/// exported afterwards.
///
/// # Errors
///
/// The errors of `work`; logging is already set up, or the host's telemetry configuration is invalid.
pub(crate) async fn run<T>(
    host_data: &HostData,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let export = Export::start(host_data)?;
    let _log = logging::start(host_data, &export)?;
    scope::set_exported(export.tracer().is_some(), export.has_metrics());
    if scope::exports_metrics() {
        process::observe();
        cache::observe();
    }
    let outcome = work.await;
    export.finish().await;
    outcome
}
