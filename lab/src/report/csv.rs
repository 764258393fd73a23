//! One line a run, for a spreadsheet or a statistics program. Times in milliseconds since the run's spawn.

use std::io;

use lab_clock::Mark;

use super::figures;
use crate::measure::phases::milliseconds;
use crate::measure::record::{Outcome, Record};

/// Writes all samples, the warm-up and failed ones too: the columns `warmup` and `outcome` tell them apart.
///
/// # Errors
/// None in practice: the text grows in memory.
pub fn render(record: &Record) -> io::Result<String> {
    // Only the marks that were reached: a container has no kernel to boot.
    let samples =
        || record.walls.iter().flat_map(|wall| wall.samples.iter().map(move |sample| (wall, sample)));
    let reached = |mark: &Mark| samples().any(|(_, sample)| sample.mark(*mark).is_some());
    let marks: Vec<_> = Mark::ALL.iter().copied().filter(reached).collect();

    let mut writer = csv::Writer::from_writer(Vec::new());
    let fixed = ["sequence", "wall", "obtained", "warmup", "outcome", "exit", "load"];
    let headings =
        fixed.into_iter().map(String::from).chain(marks.iter().map(|mark| format!("{}_ms", mark.name())));
    writer.write_record(headings.chain(["ended_ms".into()]))?;
    let mut samples: Vec<_> = samples().collect();
    samples.sort_by_key(|(_, sample)| sample.sequence);
    for (wall, sample) in samples {
        let outcome = match &sample.outcome {
            Outcome::Ok => "ok".into(),
            Outcome::Failed { message } => format!("failed: {}", figures::plain(message)),
            Outcome::Interrupted => "interrupted".into(),
        };
        let at = |at| format!("{:.6}", milliseconds(sample.spawned, at));
        let fixed = [
            sample.sequence.to_string(),
            wall.wall.name().into(),
            wall.obtained.label().into(),
            sample.warmup.to_string(),
            outcome,
            sample.exit.map_or_else(String::new, |code| code.to_string()),
            format!("{:.2}", sample.load),
        ];
        let marks = marks.iter().map(|&mark| sample.mark(mark).map_or_else(String::new, at));
        writer.write_record(fixed.into_iter().chain(marks).chain([at(sample.ended)]))?;
    }
    let bytes = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixtures;

    #[test]
    fn every_sample_is_a_line_and_says_by_what_it_was_obtained() {
        let mut record = fixtures::record(3);
        record.walls[0].samples[1].outcome = Outcome::Failed { message: "a, \"quoted\"\nreason".into() };
        let text = render(&record).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 8);
        assert!(rows.iter().filter(|row| &row[1] == "vm").all(|row| &row[2] == "KVM, not hardware-backed"));
        let sequence: Vec<u32> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
        assert!(sequence.is_sorted());
        assert!(text.lines().next().unwrap().ends_with("deleted_ms,ended_ms"));
    }
}
