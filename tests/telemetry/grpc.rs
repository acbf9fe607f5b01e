//! OTLP over gRPC.

// Guarantees: G56

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use test_support::collector::{Collector, ReceivedExports};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use wasmcloud_provider_sdk::core::otel::OtelProtocol;

use crate::observed::{Trace, observed};

/// Receives exports as a collector does.
#[derive(Clone)]
struct GrpcReceiver(Arc<Mutex<ReceivedExports>>);

#[tonic::async_trait]
impl TraceService for GrpcReceiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut taken = self.0.lock().unwrap();
        taken.traces.push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for GrpcReceiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut taken = self.0.lock().unwrap();
        taken.metrics.push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for GrpcReceiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let mut taken = self.0.lock().unwrap();
        taken.logs.push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

/// Serves one of the three services on a free port; returns its URL.
macro_rules! serve {
    ($service:expr) => {{
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TcpIncoming::from(listener);
        tokio::spawn(Server::builder().serve_with_incoming($service, incoming));
        Some(format!("http://{address}"))
    }};
}

#[tokio::test]
async fn all_signals_are_exported_over_grpc_and_flushed() {
    let taken = Arc::<Mutex<ReceivedExports>>::default();
    let receiver = GrpcReceiver(Arc::clone(&taken));
    let traces = serve!(TraceServiceServer::new(receiver.clone()));
    let metrics = serve!(MetricsServiceServer::new(receiver.clone()));
    let logs = serve!(LogsServiceServer::new(receiver));
    let collector = Collector {
        url: String::new(),
        received: taken,
    };
    let mut env = observed(&collector)
        .data(move |data| {
            data.otel_config.protocol = OtelProtocol::Grpc;
            data.otel_config.traces_endpoint = traces;
            data.otel_config.metrics_endpoint = metrics;
            data.otel_config.logs_endpoint = logs;
        })
        .start()
        .await;
    let [soon, last] = [Trace::new(), Trace::new()];
    soon.of(&env).set("", "k", "v").await.unwrap();
    soon.spans(&collector, 2).await;
    last.of(&env).get("", "k").await.unwrap();
    assert!(env.host.shutdown().await.is_some());
    assert!(env.provider.wait().await.success());
    assert_eq!(collector.trace(&last.id).len(), 2);
    let gets = [("db.operation.name", "GET")];
    assert_eq!(collector.sum("db.client.operation.duration", &gets), 1.0);
    let logs = collector.log_texts();
    assert!(logs.iter().any(|text| text == "kvredis has stopped"));
}
