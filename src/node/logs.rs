//! The log, on stderr.

use std::fmt;
use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// Starts the log of this process.
///
/// # Errors
///
/// A filter that makes no sense, in one line.
pub fn start(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("`log` is \"{}\", which is no filter; give a level (error, warn, info, debug, trace) or MODULE=LEVEL,...", filter.escape_default()))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start, as in tests, keeps the first log.
    let _ = match format {
        LogFormat::Full => log.try_init(),
        LogFormat::Compact => log.compact().without_time().try_init(),
        LogFormat::Json => log.event_format(JsonLines).try_init(),
    };
    Ok(())
}

/// One JSON object a line: `t_us` (microseconds since the Unix epoch), `level`, `target`, and the fields.
#[derive(Debug)]
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut fields = Fields(Map::new());
        let t_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        fields.0.insert("t_us".into(), json!(t_us));
        let metadata = event.metadata();
        fields
            .0
            .insert("level".into(), json!(metadata.level().as_str()));
        fields.0.insert("target".into(), json!(metadata.target()));
        event.record(&mut fields);
        writeln!(writer, "{}", Value::Object(fields.0))
    }
}

/// Collects the fields of one event.
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0
            .insert(field.name().into(), json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_makes_no_sense_is_refused_in_one_line() {
        let error = start("blocktorrent=loud=er", LogFormat::Full).unwrap_err();
        let line = error.to_string();
        assert!(line.contains("which is no filter; give a level"), "{line}");
    }
}
