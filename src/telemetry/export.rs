//! Exports traces, metrics and logs over OTLP, as the host configures it.
//!
//! The wasmCloud SDK does the same, but cannot flush the last ones before the process ends, and exports on
//! the thread that serves calls (`wasmcloud_tracing`). Here each signal is exported on its own thread.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{
    LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::logs::log_processor_with_async_runtime::BatchLogProcessor;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::metrics::periodic_reader_with_async_runtime::PeriodicReader;
use opentelemetry_sdk::runtime::TokioCurrentThread;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{BatchConfigBuilder, Sampler, SdkTracer, SdkTracerProvider};
use tokio::sync::oneshot;
use tokio::time::timeout;
use wasmcloud_provider_sdk::HostData;
use wasmcloud_provider_sdk::core::OtelConfig;
use wasmcloud_provider_sdk::core::otel::OtelProtocol;
use wasmcloud_provider_sdk::core::tls::{NATIVE_ROOTS, load_certs_from_paths};

/// The time limit for the last exports when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The providers of the exported signals.
pub(crate) struct Export {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    logs: Option<SdkLoggerProvider>,
}

/// Builds the exporter of a signal, for the protocol that the host uses.
macro_rules! exporter {
    ($exporter:ident, $config:expr, $endpoint:expr) => {{
        let built = match $config.protocol {
            OtelProtocol::Grpc => $exporter::builder()
                .with_tonic()
                .with_endpoint($endpoint)
                .build(),
            OtelProtocol::Http => $exporter::builder()
                .with_http()
                .with_http_client(http_client($config)?)
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint($endpoint)
                .build(),
        };
        built.with_context(|| format!("cannot export to {}", $endpoint))?
    }};
}

impl Export {
    /// Starts the exports that the host data and the provider's configuration enable.
    ///
    /// # Errors
    ///
    /// An endpoint is not a URL, or a certificate cannot be read.
    pub(crate) fn start(host_data: &HostData) -> anyhow::Result<Self> {
        let config = &with_overrides(&host_data.otel_config, &host_data.config);
        let resource = || resource(host_data);
        let traces = if config.traces_enabled() {
            let exporter = exporter!(SpanExporter, config, config.traces_endpoint());
            let processor = BatchSpanProcessor::builder(exporter, TokioCurrentThread)
                .with_batch_config(batch_config(config, &host_data.config).build())
                .build();
            let traces = SdkTracerProvider::builder()
                .with_sampler(sampler(config))
                .with_resource(resource())
                .with_span_processor(processor)
                .build();
            Some(traces)
        } else {
            None
        };
        let metrics = if config.metrics_enabled() {
            let exporter = exporter!(MetricExporter, config, config.metrics_endpoint());
            let mut reader = PeriodicReader::builder(exporter, TokioCurrentThread);
            if let Some(interval) = parse_number(&host_data.config, "OTEL_METRIC_EXPORT_INTERVAL") {
                reader = reader.with_interval(Duration::from_millis(interval));
            }
            let metrics = SdkMeterProvider::builder()
                .with_resource(resource())
                .with_reader(reader.build())
                .build();
            global::set_meter_provider(metrics.clone());
            Some(metrics)
        } else {
            None
        };
        let logs = if config.logs_enabled() {
            let exporter = exporter!(LogExporter, config, config.logs_endpoint());
            let processor = BatchLogProcessor::builder(exporter, TokioCurrentThread).build();
            let logs = SdkLoggerProvider::builder()
                .with_resource(resource())
                .with_log_processor(processor)
                .build();
            Some(logs)
        } else {
            None
        };
        Ok(Self {
            traces,
            metrics,
            logs,
        })
    }

    /// The tracer, if traces are exported.
    pub(crate) fn tracer(&self) -> Option<SdkTracer> {
        let traces = self.traces.as_ref()?;
        Some(traces.tracer("kvredis"))
    }

    /// Returns true if metrics are exported.
    pub(crate) fn has_metrics(&self) -> bool {
        self.metrics.is_some()
    }

    /// The destination of logs, if they are exported.
    pub(crate) fn logger_provider(&self) -> Option<&SdkLoggerProvider> {
        self.logs.as_ref()
    }

    /// Exports the buffered signals, within [`FLUSH_TIMEOUT`], and ends.
    pub(crate) async fn finish(self) {
        let (done, all_done) = oneshot::channel();
        // The SDK's functions block, and gRPC needs this thread meanwhile. The new thread is not joined: it
        // ends with the process at the latest.
        std::thread::spawn(move || {
            // Errors are ignored: the log ends with the process, too.
            let _ = self.traces.map(|traces| traces.shutdown());
            let _ = self.metrics.map(|metrics| metrics.shutdown());
            // Shutdown alone does not export: `SdkLoggerProvider` of opentelemetry_sdk 0.31 calls
            // `shutdown_with_timeout`, which `BatchLogProcessor` (log_processor_with_async_runtime.rs) lacks.
            let _ = self
                .logs
                .map(|logs| logs.force_flush().and_then(|()| logs.shutdown()));
            let _ = done.send(());
        });
        let _ = timeout(FLUSH_TIMEOUT, all_done).await;
    }
}

/// The host's configuration with the provider's overrides, in the names that the SDK reads.
fn with_overrides(host: &OtelConfig, own: &HashMap<String, String>) -> OtelConfig {
    let mut config = host.clone();
    let text = |name| find_setting(own, name).map(str::to_owned);
    let replace = |setting: &mut Option<String>, name| {
        if let Some(value) = text(name) {
            *setting = Some(value);
        }
    };
    replace(
        &mut config.observability_endpoint,
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    );
    replace(
        &mut config.traces_endpoint,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    );
    replace(
        &mut config.metrics_endpoint,
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    );
    replace(
        &mut config.logs_endpoint,
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    );
    replace(&mut config.traces_sampler, "OTEL_TRACES_SAMPLER");
    replace(&mut config.traces_sampler_arg, "OTEL_TRACES_SAMPLER_ARG");
    config.max_batch_queue_size =
        parse_number(own, "OTEL_BSP_MAX_QUEUE_SIZE").or(config.max_batch_queue_size);
    config.concurrent_exports =
        parse_number(own, "OTEL_BSP_MAX_CONCURRENT_EXPORTS").or(config.concurrent_exports);
    config
}

/// A value of the provider's configuration; names are case-insensitive.
pub(crate) fn find_setting<'a>(config: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    let mut found = config
        .iter()
        .filter(|(known, _)| known.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.as_str())
}

/// A number of the provider's configuration. The log is not set up yet, so warnings go to standard error.
fn parse_number<T: FromStr>(config: &HashMap<String, String>, name: &str) -> Option<T> {
    let text = find_setting(config, name)?;
    let number = text.trim().parse().ok();
    if number.is_none() {
        eprintln!("kvredis: invalid setting {name}={text:?}: expected a number; it is ignored");
    }
    number
}

fn batch_config(config: &OtelConfig, own: &HashMap<String, String>) -> BatchConfigBuilder {
    let mut builder = BatchConfigBuilder::default();
    if let Some(size) = config.max_batch_queue_size {
        builder = builder.with_max_queue_size(size);
    }
    if let Some(exports) = config.concurrent_exports {
        builder = builder.with_max_concurrent_exports(exports);
    }
    if let Some(delay) = parse_number(own, "OTEL_BSP_SCHEDULE_DELAY") {
        builder = builder.with_scheduled_delay(Duration::from_millis(delay));
    }
    builder
}

fn sampler(config: &OtelConfig) -> Sampler {
    let ratio = || {
        let ratio = config.traces_sampler_arg.as_deref().unwrap_or("1");
        Sampler::TraceIdRatioBased(ratio.parse().unwrap_or_else(|_| {
            eprintln!(
                "kvredis: invalid setting OTEL_TRACES_SAMPLER_ARG={ratio:?}: expected a number from \
                 0 to 1; 1 is used"
            );
            1.0
        }))
    };
    let child_of = |root| Sampler::ParentBased(Box::new(root));
    match config.traces_sampler.as_deref() {
        None | Some("parentbased_always_on") => child_of(Sampler::AlwaysOn),
        Some("parentbased_always_off") => child_of(Sampler::AlwaysOff),
        Some("parentbased_traceidratio") => child_of(ratio()),
        Some("always_on") => Sampler::AlwaysOn,
        Some("always_off") => Sampler::AlwaysOff,
        Some("traceidratio") => ratio(),
        Some(other) => {
            eprintln!(
                "kvredis: invalid setting OTEL_TRACES_SAMPLER={other:?}: parentbased_always_on is \
                 used"
            );
            child_of(Sampler::AlwaysOn)
        }
    }
}

/// The resource of all signals. The instance id distinguishes processes that export the same metrics.
fn resource(host_data: &HostData) -> Resource {
    Resource::builder()
        .with_service_name("kvredis")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", host_data.instance_id.clone()),
        ])
        .build()
}

/// A client that trusts the system's roots and the host's additional certificates.
fn http_client(config: &OtelConfig) -> anyhow::Result<reqwest::Client> {
    let own = load_certs_from_paths(&config.additional_ca_paths)
        .context("cannot read the certificates to trust for telemetry")?;
    NATIVE_ROOTS
        .iter()
        .chain(&own)
        .filter_map(|root| reqwest::Certificate::from_der(root).ok())
        .fold(
            reqwest::Client::builder(),
            reqwest::ClientBuilder::add_root_certificate,
        )
        .user_agent(concat!("kvredis/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("cannot set up HTTP for telemetry")
}
