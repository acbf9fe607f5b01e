//! Sets up the log: to standard error, and to the collector if the host exports logs.
//!
//! Each destination has its own filter, so the log level does not apply to traces.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, stderr};
use std::panic;

use anyhow::Context as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Metadata, error};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_flame::FlameLayer;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{DynFilterFn, EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};
use wasmcloud_provider_sdk::HostData;
use wasmcloud_provider_sdk::core::logging::Level;

use crate::telemetry::export::{Export, find_setting};
use crate::telemetry::log_throttle::LogThrottle;

/// The log levels of other crates. Below them they only repeat events that kvredis logs.
const OTHER_CRATES: &str = "async_nats=warn,h2=info,hyper=info,hyper_util=info,opentelemetry=warn,\
                      reqwest=info,rustls=info,tonic=info,tower=info";

/// The crates that export logs. Exporting their own logs would never end.
const EXPORTERS: [&str; 7] = [
    "h2",
    "hyper",
    "opentelemetry",
    "reqwest",
    "rustls",
    "tonic",
    "tower",
];

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Flushes buffered output when dropped.
pub(crate) struct Guard {
    _stderr: WorkerGuard,
    _flame: Option<tracing_flame::FlushGuard<BufWriter<File>>>,
}

/// Sets up the log of the process.
///
/// # Errors
///
/// It was set up before, or the file of `FLAMEGRAPH_PATH` cannot be written.
pub(crate) fn start(host_data: &HostData, export: &Export) -> anyhow::Result<Guard> {
    let trace_level = level_of(&host_data.otel_config.trace_level);
    let mut layers: Vec<BoxedLayer> = Vec::new();

    if let Some(tracer) = export.tracer() {
        let traces = OpenTelemetryLayer::new(tracer)
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(move |metadata| is_span(metadata, trace_level)));
        layers.push(traces.boxed());
    }
    if let Some(logs) = export.logger_provider() {
        let filter = level_filter(host_data).and(filter_fn(|metadata| !is_from_exporter(metadata)));
        layers.push(
            OpenTelemetryTracingBridge::new(logs)
                .with_filter(filter)
                .boxed(),
        );
    }
    let mut flame_guard = None;
    if let Some(path) = find_setting(&host_data.config, "FLAMEGRAPH_PATH") {
        let (flame, guard) =
            FlameLayer::with_file(path).context("cannot write the file of FLAMEGRAPH_PATH")?;
        flame_guard = Some(guard);
        let filter = filter_fn(move |metadata| is_span(metadata, trace_level));
        layers.push(flame.with_filter(filter).boxed());
    }

    let is_terminal = stderr().is_terminal();
    let (stderr, stderr_guard) = tracing_appender::non_blocking(stderr());
    let lines = fmt::layer().with_writer(stderr).with_ansi(is_terminal);
    let filter = level_filter(host_data)
        .and(filter_fn(|metadata| metadata.is_event()))
        .and(throttle_exporters());
    layers.push(if host_data.structured_logging {
        lines.json().with_filter(filter).boxed()
    } else {
        lines.with_filter(filter).boxed()
    });

    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .context("logging was set up before")?;
    log_panics();
    Ok(Guard {
        _stderr: stderr_guard,
        _flame: flame_guard,
    })
}

/// Logs panics by their location. Their messages may contain stored data.
fn log_panics() {
    let throttle = LogThrottle::default();
    panic::set_hook(Box::new(move |info| {
        if let Some(panics) = throttle.record(1) {
            let location = info.location().map(ToString::to_string);
            error!(
                location,
                panics, "panicked, a fault of kvredis (most recent location shown)"
            );
        }
    }));
}

/// Only spans become traces: log events may contain names of buckets.
fn is_span(metadata: &Metadata<'_>, max_level: LevelFilter) -> bool {
    metadata.is_span() && metadata.target().starts_with("kvredis") && *metadata.level() <= max_level
}

fn is_from_exporter(metadata: &Metadata<'_>) -> bool {
    EXPORTERS
        .iter()
        .any(|exporter| metadata.target().starts_with(exporter))
}

/// The host's log level, with the directives of `RUST_LOG`.
fn level_filter(host_data: &HostData) -> EnvFilter {
    let level = host_data
        .log_level
        .as_ref()
        .map_or(LevelFilter::INFO, level_of);
    let others = if level >= LevelFilter::INFO {
        OTHER_CRATES
    } else {
        ""
    };
    let own = std::env::var("RUST_LOG").unwrap_or_default();
    EnvFilter::builder()
        .parse(format!("{level},{others},{own}"))
        .unwrap_or_else(|error| {
            eprintln!("kvredis: invalid RUST_LOG, which is ignored: {error}");
            EnvFilter::builder().parse_lossy(format!("{level},{others}"))
        })
}

/// Logs each event of the exporters once a minute at most: an unavailable collector causes one per export.
fn throttle_exporters() -> impl Filter<Registry> {
    let throttles: Mutex<HashMap<Identifier, LogThrottle>> = Mutex::default();
    DynFilterFn::new(move |metadata, _| {
        if !metadata.target().starts_with("opentelemetry") {
            return true;
        }
        let mut throttles = throttles.lock();
        let throttle = throttles.entry(metadata.callsite()).or_default();
        throttle.record(1).is_some()
    })
}

fn level_of(level: &Level) -> LevelFilter {
    match level {
        Level::Error | Level::Critical => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}
