//! Sets up the log: to standard error, and to the collector where the host has logs exported.
//!
//! Each way out has a filter of its own, so that the log's level does not decide about traces.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, stderr};

use anyhow::Context as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use parking_lot::Mutex;
use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_flame::FlameLayer;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{DynFilterFn, EnvFilter, FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};
use wasmcloud_provider_sdk::HostData;
use wasmcloud_provider_sdk::core::logging::Level;

use crate::telemetry::export::Export;
use crate::telemetry::log_throttle::LogThrottle;

/// What other crates say below this is of no use, or said by kvredis itself.
const OTHERS: &str = "async_nats=warn,h2=info,hyper=info,hyper_util=info,opentelemetry=warn,\
                      reqwest=info,rustls=info,tonic=info,tower=info";

/// Who sends logs must not send what it says about that.
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

/// Writes what is buffered when dropped.
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
    let trace_level = level(&host_data.otel_config.trace_level);
    let mut layers: Vec<BoxedLayer> = Vec::new();

    if let Some(tracer) = export.tracer() {
        let traces = OpenTelemetryLayer::new(tracer)
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(move |what| is_span(what, trace_level)));
        layers.push(traces.boxed());
    }
    if let Some(logs) = export.logs() {
        let filter = level_filter(host_data).and(filter_fn(|what| !is_exporters(what)));
        layers.push(
            OpenTelemetryTracingBridge::new(logs)
                .with_filter(filter)
                .boxed(),
        );
    }
    let path = host_data
        .config
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("FLAMEGRAPH_PATH"));
    let mut flame_guard = None;
    if let Some((_, path)) = path {
        let (flame, guard) =
            FlameLayer::with_file(path).context("cannot write the file of FLAMEGRAPH_PATH")?;
        flame_guard = Some(guard);
        let filter = filter_fn(move |what| is_span(what, trace_level));
        layers.push(flame.with_filter(filter).boxed());
    }

    let colours = stderr().is_terminal();
    let (stderr, stderr_guard) = tracing_appender::non_blocking(stderr());
    let lines = fmt::layer().with_writer(stderr).with_ansi(colours);
    let filter = level_filter(host_data)
        .and(filter_fn(|what| what.is_event()))
        .and(seldom());
    layers.push(if host_data.structured_logging {
        lines.json().with_filter(filter).boxed()
    } else {
        lines.with_filter(filter).boxed()
    });

    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .context("logging was set up before")?;
    Ok(Guard {
        _stderr: stderr_guard,
        _flame: flame_guard,
    })
}

/// Spans alone make traces: what is logged would carry names of buckets into them.
fn is_span(what: &Metadata<'_>, most: LevelFilter) -> bool {
    what.is_span() && what.target().starts_with("kvredis") && *what.level() <= most
}

fn is_exporters(what: &Metadata<'_>) -> bool {
    EXPORTERS
        .iter()
        .any(|exporter| what.target().starts_with(exporter))
}

/// What the host wants logged, and `RUST_LOG` where it is set.
fn level_filter(host_data: &HostData) -> EnvFilter {
    let most = host_data
        .log_level
        .as_ref()
        .map_or(LevelFilter::INFO, level);
    let others = if most >= LevelFilter::INFO {
        OTHERS
    } else {
        ""
    };
    let own = std::env::var("RUST_LOG").unwrap_or_default();
    EnvFilter::builder()
        .parse(format!("{most},{others},{own}"))
        .unwrap_or_else(|error| {
            eprintln!("kvredis: wrong RUST_LOG, which is ignored: {error}");
            EnvFilter::builder().parse_lossy(format!("{most},{others}"))
        })
}

/// A collector that is away is told of once a minute, not with every export.
fn seldom() -> impl Filter<Registry> {
    let told: Mutex<HashMap<Identifier, LogThrottle>> = Mutex::default();
    DynFilterFn::new(move |what, _| {
        if !what.target().starts_with("opentelemetry") {
            return true;
        }
        let mut told = told.lock();
        let events = told.entry(what.callsite()).or_default();
        events.record(1).is_some()
    })
}

fn level(level: &Level) -> LevelFilter {
    match level {
        Level::Error | Level::Critical => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}
