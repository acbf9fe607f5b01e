//! The received exports in the form that tests inspect: spans, log texts, and latest metric points.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::collector::Collector;

/// Attributes with their values as text.
pub type Attributes = BTreeMap<String, String>;

/// A span.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub kind: SpanKind,
    pub trace: String,
    pub id: String,
    /// The id of the parent span; empty for a root span.
    pub parent: String,
    pub attributes: Attributes,
    pub failed: bool,
    pub events: usize,
}

/// The latest value of a metric with certain attributes: its number, or a histogram's count.
#[derive(Clone, Debug)]
pub struct Point {
    pub metric: String,
    pub unit: String,
    pub kind: &'static str,
    pub attributes: Attributes,
    pub value: f64,
}

impl Span {
    /// The value of an attribute; empty when it is absent.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Collector {
    /// All spans, in the order in which they ended.
    pub fn spans(&self) -> Vec<Span> {
        let taken = self.received();
        let resources = taken.traces.iter().flat_map(|all| &all.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes
            .flat_map(|scope| &scope.spans)
            .map(|span| Span {
                name: span.name.clone(),
                kind: span.kind(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: attributes(&span.attributes),
                failed: span
                    .status
                    .as_ref()
                    .is_some_and(|status| status.code() == StatusCode::Error),
                events: span.events.len(),
            })
            .collect()
    }

    /// The spans of one trace.
    pub fn trace(&self, id: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace == id);
        spans
    }

    /// The latest points of all metrics.
    pub fn points(&self) -> Vec<Point> {
        let mut latest = BTreeMap::new();
        for metric in self.metrics() {
            for point in points(&metric) {
                latest.insert((point.metric.clone(), point.attributes.clone()), point);
            }
        }
        latest.into_values().collect()
    }

    /// The sum of the latest points of a metric that have these attributes.
    pub fn sum(&self, metric: &str, with: &[(&str, &str)]) -> f64 {
        let has = |point: &Point, (name, value): &(&str, &str)| {
            point.attributes.get(*name).map_or("", String::as_str) == *value
        };
        self.points()
            .iter()
            .filter(|point| point.metric == metric)
            .filter(|point| with.iter().all(|attribute| has(point, attribute)))
            .map(|point| point.value)
            .sum()
    }

    /// The resource attributes, which are the same for all signals.
    pub fn resource(&self) -> Attributes {
        let taken = self.received();
        let spans = taken.traces.iter().flat_map(|all| &all.resource_spans);
        let metrics = taken.metrics.iter().flat_map(|all| &all.resource_metrics);
        let mut all = spans
            .map(|resource| &resource.resource)
            .chain(metrics.map(|resource| &resource.resource))
            .flatten()
            .map(|resource| attributes(&resource.attributes));
        let first = all.next().unwrap_or_default();
        assert!(
            all.all(|other| other == first),
            "signals with different resources: {first:?}"
        );
        first
    }

    /// The texts of all log records, each with its trace id.
    pub fn logs(&self) -> Vec<(String, String)> {
        let taken = self.received();
        let resources = taken.logs.iter().flat_map(|all| &all.resource_logs);
        let scopes = resources.flat_map(|resource| &resource.scope_logs);
        scopes
            .flat_map(|scope| &scope.log_records)
            .map(|record| (text(record.body.as_ref()), hex(&record.trace_id)))
            .collect()
    }

    /// The texts of all log records.
    pub fn log_texts(&self) -> Vec<String> {
        let logs = self.logs().into_iter();
        logs.map(|(text, _)| text).collect()
    }

    fn metrics(&self) -> Vec<Metric> {
        let taken = self.received();
        let resources = taken.metrics.iter().flat_map(|all| &all.resource_metrics);
        let scopes = resources.flat_map(|resource| &resource.scope_metrics);
        scopes.flat_map(|scope| scope.metrics.clone()).collect()
    }
}

fn points(metric: &Metric) -> Vec<Point> {
    let point = |kind, of: &[KeyValue], value| Point {
        metric: metric.name.clone(),
        unit: metric.unit.clone(),
        kind,
        attributes: attributes(of),
        value,
    };
    let numbers = |kind, all: &[NumberDataPoint]| {
        all.iter()
            .map(|number| point(kind, &number.attributes, value_of(number)))
            .collect()
    };
    match &metric.data {
        Some(Data::Gauge(gauge)) => numbers("gauge", &gauge.data_points),
        Some(Data::Sum(sum)) if sum.is_monotonic => numbers("counter", &sum.data_points),
        Some(Data::Sum(sum)) => numbers("up-down counter", &sum.data_points),
        Some(Data::Histogram(histogram)) => histogram
            .data_points
            .iter()
            .map(|measured| point("histogram", &measured.attributes, measured.count as f64))
            .collect(),
        other => panic!("unexpected metric type {other:?}"),
    }
}

fn value_of(number: &NumberDataPoint) -> f64 {
    match number.value {
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        Some(number_data_point::Value::AsDouble(value)) => value,
        None => f64::NAN,
    }
}

fn attributes(all: &[KeyValue]) -> Attributes {
    all.iter()
        .map(|attribute| (attribute.key.clone(), text(attribute.value.as_ref())))
        .collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(bool)) => bool.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
