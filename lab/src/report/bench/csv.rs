//! One line a value, for a spreadsheet or a statistics program: everything, warm-ups and failed runs too.

use std::io;

use crate::measure::bench::record::Bench;
use crate::measure::record::Outcome;
use crate::report::figures;

/// Writes all values.
///
/// # Errors
/// None in practice: the text grows in memory.
pub fn render(bench: &Bench) -> io::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "experiment",
        "sequence",
        "subject",
        "variant",
        "obtained",
        "warmup",
        "outcome",
        "load",
        "metric",
        "unit",
        "x",
        "value",
        "command",
    ])?;
    for experiment in &bench.experiments {
        for run in &experiment.runs {
            let obtained = bench.subject(&run.subject).map_or("unknown", |subject| subject.obtained.label());
            let outcome = match &run.outcome {
                Outcome::Ok => "ok".into(),
                Outcome::Failed { message } => format!("failed: {}", figures::plain(message)),
                Outcome::Interrupted => "interrupted".into(),
            };
            let mut line = |metric: &str, x: String, value: String| {
                let unit = experiment.metric(metric).map(|metric| format!("{:?}", metric.unit));
                writer.write_record([
                    &experiment.name,
                    &run.sequence.to_string(),
                    &run.subject,
                    &run.variant,
                    obtained,
                    &run.warmup.to_string(),
                    &outcome,
                    &format!("{:.2}", run.load),
                    metric,
                    &unit.unwrap_or_default(),
                    &x,
                    &value,
                    &figures::plain(&run.command),
                ])
            };
            if run.values.is_empty() {
                line("", String::new(), String::new())?;
            }
            for values in &run.values {
                let x = values.x.map_or_else(String::new, |x| x.to_string());
                for value in &values.samples {
                    line(&values.metric, x.clone(), value.to_string())?;
                }
            }
        }
    }
    let bytes = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::bench::record::tests::bench;

    #[test]
    fn every_value_is_a_line_and_says_by_what_it_was_obtained() {
        let mut bench = bench(3);
        bench.experiments[0].runs[1].outcome = Outcome::Failed { message: "a, \"quoted\"\nreason".into() };
        bench.experiments[0].runs[1].values.clear();
        let text = render(&bench).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 6 + 12);
        assert!(rows.iter().all(|row| row[12].starts_with("lab run")), "{text}");
        assert!(rows.iter().filter(|row| &row[2] == "vm").all(|row| &row[4] == "KVM, not hardware-backed"));
        assert_eq!(rows.iter().filter(|row| row[6].starts_with("failed")).count(), 1);
    }
}
