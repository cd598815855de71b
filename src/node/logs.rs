//! The log, on stderr.

use std::fmt;
use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::lines::{FlushAtEnd, LineQueue};
use crate::config::{ConfigError, LogFormat};

/// The store of the Electrum index tells of each file that it writes.
const QUIET: &str = "fjall=warn,lsm_tree=warn";

/// Starts the log of this process; what is returned must live as long as something is to be logged.
///
/// # Errors
///
/// A filter that makes no sense, in one line.
pub fn start(filter: &str, format: LogFormat) -> anyhow::Result<FlushAtEnd> {
    let refuse = || {
        ConfigError::Senseless(format!(
            "`log` is \"{}\", which is no filter; give a level (off, error, warn, info, debug, trace) or MODULE=LEVEL,...",
            filter.escape_default()
        ))
    };
    if !names_levels(filter) {
        return Err(refuse().into());
    }
    // What is said later counts more, so an operator can have these lines.
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|_| refuse())?;
    let lines = LineQueue::start(std::io::stderr()).context("can't start the thread of the log")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        .with_ansi(std::io::stderr().is_terminal());
    // A second start, as in tests, keeps the first log.
    let _ = match format {
        LogFormat::Full => log.try_init(),
        LogFormat::Compact => log.compact().without_time().try_init(),
        LogFormat::Json => log.event_format(JsonLines).try_init(),
    };
    Ok(FlushAtEnd(lines))
}

/// Whether every part of the filter says how much is logged. A lone word that is no level would be taken for a
/// module: `--log inof` would log nothing at all, and not say so.
fn names_levels(filter: &str) -> bool {
    // Parts with fields have commas of their own, and are not written by mistake.
    filter.contains('[')
        || filter
            .split(',')
            .map(str::trim)
            .all(|part| part.contains('=') || part.parse::<LevelFilter>().is_ok())
            && filter.contains(|character| character != ',')
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
        for filter in [
            "blocktorrent=loud=er",
            "inof",
            "",
            " ",
            ",",
            "warn,inof",
            "x,",
        ] {
            let error = start(filter, LogFormat::Full).unwrap_err();
            let line = error.to_string();
            assert!(line.contains("which is no filter; give a level"), "{line}");
        }
        for filter in [
            "off",
            "WARN",
            "blocktorrent=debug,info",
            "[span{a=1,b=2}]=info",
        ] {
            assert!(names_levels(filter), "{filter}");
        }
    }
}
