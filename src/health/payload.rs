//! The instruments as OTLP requests for the journal, cut to the limits of those who take them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, Metric, NumberDataPoint, ResourceMetrics as WireMetrics, ScopeMetrics, Sum,
};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use prost::Message;

use super::instruments::{RUNS, RUNS_PLANNED};
use crate::clock::Timestamp;

/// The most data points of one request, as `CloudWatch` has it.
const POINTS: usize = 1_000;
/// The most bytes of one request's data points: `CloudWatch` takes 1 MB, and names and resource come on top.
const BYTES: usize = 900_000;

/// OpenTelemetry's exporter, with a client below it that keeps what others would send: the outbox sends it later.
#[derive(Debug)]
pub(super) struct Encoder {
    exporter: MetricExporter,
    caught: Caught,
    since: Mutex<Option<Timestamp>>,
}

impl Encoder {
    pub(super) fn new() -> Result<Self, String> {
        let caught = Caught::default();
        let exporter = MetricExporter::builder()
            .with_http()
            .with_http_client(caught.clone())
            // Said here, so that no variable of the environment says otherwise.
            .with_endpoint("http://journal.invalid/v1/metrics")
            .with_retry_policy(RetryPolicy::disabled())
            .with_max_request_body_size(usize::MAX)
            .with_temporality(Temporality::Cumulative)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { exporter, caught, since: Mutex::new(None) })
    }

    /// The ledger's counters count since then, not since this process began.
    pub(super) fn count_since(&self, since: Timestamp) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(since);
    }

    pub(super) fn encode(&self, metrics: ResourceMetrics) -> Result<Vec<Bytes>, String> {
        // Our client is never waited for, so neither is the exporter.
        let exported = self.exporter.export(&metrics).now_or_never();
        exported.ok_or("the exporter waits")?.map_err(|error| error.to_string())?;
        // With ten thousand probes this is memory that the next lines can use.
        drop(metrics);
        let whole = self.caught.take().ok_or("the exporter sent nothing")?;
        let request =
            ExportMetricsServiceRequest::decode(whole).map_err(|error| error.to_string())?;
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(split(request, since))
    }
}

/// A client that keeps the body.
#[derive(Clone, Debug, Default)]
struct Caught(Arc<Mutex<Option<Bytes>>>);

impl Caught {
    fn take(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[async_trait::async_trait]
impl HttpClient for Caught {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.into_body());
        Ok(Response::new(Bytes::new()))
    }
}

/// The same data points in requests that are small enough.
fn split(request: ExportMetricsServiceRequest, since: Option<Timestamp>) -> Vec<Bytes> {
    let mut done = Vec::new();
    for mut of_resource in request.resource_metrics {
        if let Some(resource) = &mut of_resource.resource {
            resource.attributes.sort_by(|one, other| one.key.cmp(&other.key));
        }
        for mut of_scope in std::mem::take(&mut of_resource.scope_metrics) {
            let metrics = std::mem::take(&mut of_scope.metrics);
            let mut parcel = Parcel::new(&of_resource, &of_scope);
            for metric in metrics {
                parcel.add(metric, since);
            }
            parcel.close();
            done.append(&mut parcel.done);
        }
    }
    done
}

/// Requests that are being filled, one after the other.
struct Parcel<'a> {
    resource: &'a WireMetrics,
    scope: &'a ScopeMetrics,
    metrics: Vec<Metric>,
    points: usize,
    bytes: usize,
    done: Vec<Bytes>,
}

impl<'a> Parcel<'a> {
    fn new(resource: &'a WireMetrics, scope: &'a ScopeMetrics) -> Self {
        Self { resource, scope, metrics: Vec::new(), points: 0, bytes: 0, done: Vec::new() }
    }

    fn add(&mut self, mut metric: Metric, since: Option<Timestamp>) {
        match metric.data.take() {
            Some(Data::Gauge(Gauge { data_points })) => {
                self.fill(&metric, data_points, |data_points| Data::Gauge(Gauge { data_points }));
            }
            Some(Data::Sum(sum)) => {
                let Sum { mut data_points, aggregation_temporality, is_monotonic } = sum;
                if matches!(metric.name.as_str(), RUNS | RUNS_PLANNED) {
                    start(&mut data_points, since);
                }
                self.fill(&metric, data_points, |data_points| {
                    Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
                });
            }
            Some(Data::Histogram(histogram)) => {
                let Histogram { data_points, aggregation_temporality } = histogram;
                self.fill(&metric, data_points, |data_points| {
                    Data::Histogram(Histogram { data_points, aggregation_temporality })
                });
            }
            // No instrument of ours makes these.
            Some(Data::ExponentialHistogram(_) | Data::Summary(_)) | None => {}
        }
    }

    fn fill<P: Message>(&mut self, head: &Metric, points: Vec<P>, data: impl Fn(Vec<P>) -> Data) {
        let mut fitting = Vec::new();
        for point in points {
            let bytes = point.encoded_len() + 8;
            if self.points == POINTS || self.bytes + bytes > BYTES {
                self.put(head, std::mem::take(&mut fitting), &data);
                self.close();
            }
            self.points += 1;
            self.bytes += bytes;
            fitting.push(point);
        }
        self.put(head, fitting, &data);
    }

    fn put<P>(&mut self, head: &Metric, points: Vec<P>, data: impl Fn(Vec<P>) -> Data) {
        if !points.is_empty() {
            self.metrics.push(Metric { data: Some(data(points)), ..head.clone() });
        }
    }

    fn close(&mut self) {
        let metrics = std::mem::take(&mut self.metrics);
        (self.points, self.bytes) = (0, 0);
        if metrics.is_empty() {
            return;
        }
        let scope = ScopeMetrics { metrics, ..self.scope.clone() };
        let resource = WireMetrics { scope_metrics: vec![scope], ..self.resource.clone() };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource] };
        self.done.push(Bytes::from(request.encode_to_vec()));
    }
}

fn start(points: &mut [NumberDataPoint], since: Option<Timestamp>) {
    let Some(since) = since else {
        return;
    };
    for point in points {
        point.start_time_unix_nano = since.nanos();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(points: usize) -> Metric {
        Metric {
            name: "probe.success".to_owned(),
            data: Some(Data::Gauge(Gauge {
                data_points: vec![NumberDataPoint::default(); points],
            })),
            ..Metric::default()
        }
    }

    #[test]
    fn no_request_has_more_than_a_thousand_points_and_none_is_lost() {
        let of_scope = ScopeMetrics {
            metrics: vec![gauge(700), gauge(1_800), gauge(0)],
            ..ScopeMetrics::default()
        };
        let of_resource = WireMetrics { scope_metrics: vec![of_scope], ..WireMetrics::default() };
        let whole = ExportMetricsServiceRequest { resource_metrics: vec![of_resource] };
        let counted = split(whole, None).into_iter().map(|part| {
            let part = ExportMetricsServiceRequest::decode(part).unwrap();
            let metrics = part.resource_metrics[0].scope_metrics[0].metrics.iter();
            let points = metrics.map(|metric| match &metric.data {
                Some(Data::Gauge(gauge)) => gauge.data_points.len(),
                _ => 0,
            });
            points.sum::<usize>()
        });
        assert_eq!(counted.collect::<Vec<_>>(), [1_000, 1_000, 500]);
    }
}
