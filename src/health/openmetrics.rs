//! The instruments as text: Prometheus' own, and `OpenMetrics`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::data::{
    AggregatedMetrics, Histogram, Metric, MetricData, ResourceMetrics,
};

/// The two forms: they differ in the names of counters' families, in units and in the last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Prometheus,
    OpenMetrics,
}

impl Form {
    /// The form that an `Accept` header asks for.
    pub(super) fn accepted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The whole page.
pub(super) fn write(metrics: &ResourceMetrics, form: Form) -> String {
    let mut page = Page { form, text: String::new() };
    page.target(metrics);
    for scope in metrics.scope_metrics() {
        for metric in scope.metrics() {
            page.metric(metric);
        }
    }
    if form == Form::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

struct Page {
    form: Form,
    text: String,
}

/// The name under which a metric's samples stand.
struct Family {
    name: String,
    unit: Option<&'static str>,
}

impl Page {
    /// Who is speaking.
    fn target(&mut self, metrics: &ResourceMetrics) {
        let resource = metrics.resource().iter();
        let labels = labels(resource.map(|(key, value)| (key.as_str(), value.as_str())));
        let (family, kind) = match self.form {
            Form::Prometheus => ("target_info", "gauge"),
            Form::OpenMetrics => ("target", "info"),
        };
        self.head(family, kind, None, "Who is speaking.");
        self.sample("target_info", &labels, "1");
    }

    fn metric(&mut self, metric: &Metric) {
        match metric.data() {
            AggregatedMetrics::F64(data) => self.data(metric, data),
            AggregatedMetrics::U64(data) => self.data(metric, data),
            AggregatedMetrics::I64(data) => self.data(metric, data),
        }
    }

    fn data<T: Copy + ToString>(&mut self, metric: &Metric, data: &MetricData<T>) {
        let family = Family::of(metric);
        match data {
            MetricData::Gauge(gauge) => {
                let points = gauge.data_points();
                let points = points.map(|point| (shown(point.attributes()), point.value()));
                self.family(&family, "gauge", metric, &family.name, points.collect());
            }
            MetricData::Sum(sum) => {
                let points = sum.data_points();
                let points = points.map(|point| (shown(point.attributes()), point.value()));
                let name = format!("{}_total", family.name);
                self.family(&family, "counter", metric, &name, points.collect());
            }
            MetricData::Histogram(histogram) => self.histogram(&family, metric, histogram),
            // No instrument of ours makes these.
            MetricData::ExponentialHistogram(_) => {}
        }
    }

    fn family<T: ToString>(
        &mut self,
        family: &Family,
        kind: &str,
        metric: &Metric,
        name: &str,
        mut points: Vec<(String, T)>,
    ) {
        if points.is_empty() {
            return;
        }
        points.sort_by(|one, other| one.0.cmp(&other.0));
        // Prometheus' own text names a counter's family as its samples.
        let head = if self.form == Form::Prometheus { name } else { &family.name };
        self.head(head, kind, family.unit, metric.description());
        for (labels, value) in points {
            self.sample(name, &labels, &value.to_string());
        }
    }

    fn histogram<T: Copy + ToString>(
        &mut self,
        family: &Family,
        metric: &Metric,
        histogram: &Histogram<T>,
    ) {
        let mut points: Vec<_> =
            histogram.data_points().map(|point| (shown(point.attributes()), point)).collect();
        if points.is_empty() {
            return;
        }
        points.sort_by(|one, other| one.0.cmp(&other.0));
        self.head(&family.name, "histogram", family.unit, metric.description());
        let [bucket, sum, count] =
            ["bucket", "sum", "count"].map(|suffix| format!("{}_{suffix}", family.name));
        for (labels, point) in points {
            let mut below = 0;
            let bounds = point.bounds().map(Some).chain([None]);
            for (bound, in_bucket) in bounds.zip(point.bucket_counts()) {
                below += in_bucket;
                let comma = if labels.is_empty() { "" } else { "," };
                let labels = format!("{labels}{comma}le=\"{}\"", self.bound(bound));
                self.sample(&bucket, &labels, &below.to_string());
            }
            self.sample(&sum, &labels, &point.sum().to_string());
            self.sample(&count, &labels, &point.count().to_string());
        }
    }

    fn bound(&self, bound: Option<f64>) -> Cow<'static, str> {
        match (bound, self.form) {
            (None, _) => Cow::Borrowed("+Inf"),
            (Some(bound), Form::Prometheus) => Cow::Owned(bound.to_string()),
            // OpenMetrics wants to see that it is no whole number: 1.0.
            (Some(bound), Form::OpenMetrics) => Cow::Owned(format!("{bound:?}")),
        }
    }

    fn head(&mut self, family: &str, kind: &str, unit: Option<&str>, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {family} {help}"));
        self.line(format_args!("# TYPE {family} {kind}"));
        if let Some(unit) = unit.filter(|_| self.form == Form::OpenMetrics) {
            self.line(format_args!("# UNIT {family} {unit}"));
        }
    }

    fn sample(&mut self, name: &str, labels: &str, value: &str) {
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _written = writeln!(self.text, "{line}");
    }
}

impl Family {
    /// As OpenTelemetry's rules for Prometheus have it: no dots, and the unit in full at the end.
    fn of(metric: &Metric) -> Self {
        let mut name = sanitized(metric.name());
        let unit = match metric.unit() {
            "s" => Some("seconds"),
            "By" => Some("bytes"),
            _ => None,
        };
        if let Some(unit) = unit.filter(|unit| !name.ends_with(unit)) {
            name = format!("{name}_{unit}");
        }
        Self { name, unit }
    }
}

fn shown<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    labels(attributes.map(|attribute| (attribute.key.as_str(), attribute.value.as_str())))
}

/// `name="value"` pairs, sorted; names that fall together share one pair, as OpenTelemetry's rules have it.
fn labels<'a>(attributes: impl Iterator<Item = (&'a str, Cow<'a, str>)>) -> String {
    let mut pairs = BTreeMap::<String, String>::new();
    for (key, value) in attributes {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        pairs
            .entry(sanitized(key))
            .and_modify(|known| {
                known.push(';');
                known.push_str(&value);
            })
            .or_insert(value);
    }
    let pairs = pairs.iter().map(|(name, value)| format!("{name}=\"{value}\""));
    pairs.collect::<Vec<_>>().join(",")
}

/// A name without what Prometheus does not allow in names.
fn sanitized(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut clean: String = name.chars().map(fits).collect();
    if clean.starts_with(|first: char| first.is_ascii_digit()) || clean.is_empty() {
        clean.insert(0, '_');
    }
    clean
}
