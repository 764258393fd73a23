//! `lab images`: the images at hand.

use std::fmt::Write as _;
use std::process::ExitCode;

use jiff::Timestamp;
use lab::image::{Store, Summary, embedded};
use serde_json::{Value, json};

use super::style::HEADING;

/// List the images at hand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the ids.
    #[arg(short, long)]
    quiet: bool,
    /// As JSON, with full ids, times and bytes.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Do not shorten ids.
    #[arg(long)]
    no_trunc: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = Store::open_default()?;
    // So that a fresh machine's list is not empty: this is what `lab run lab` would run.
    embedded::ensure(&store)?;
    let images = store.list()?;
    let text = if args.json {
        let images: Vec<Value> = images.iter().map(object).collect();
        format!("{}\n", serde_json::to_string_pretty(&images)?)
    } else if args.quiet {
        quiet(&images, args.no_trunc)
    } else {
        table(&images, args.no_trunc, Timestamp::now())
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn object(image: &Summary) -> Value {
    json!({
        "name": image.name.as_ref().map(lab::image::Reference::familiar),
        "id": image.id,
        "manifest": image.manifest,
        "created": image.created,
        "size": image.size,
    })
}

fn quiet(images: &[Summary], full: bool) -> String {
    let mut ids: Vec<String> = images.iter().map(|image| id(image, full)).collect();
    // An image with two names is one image.
    ids.dedup();
    ids.iter().fold(String::new(), |text, id| text + id + "\n")
}

fn id(image: &Summary, full: bool) -> String {
    if full { image.id.to_string() } else { image.id.hex()[..12].to_owned() }
}

/// The columns of `docker images`.
fn table(images: &[Summary], full: bool, now: Timestamp) -> String {
    let none = || "<none>".to_owned();
    let rows: Vec<[String; 5]> = images
        .iter()
        .map(|image| {
            let name = image.name.as_ref();
            [
                name.map_or_else(none, lab::image::Reference::familiar_repository),
                name.and_then(|name| name.tag().map(str::to_owned)).unwrap_or_else(none),
                id(image, full),
                image.created.as_deref().map_or_else(|| "N/A".to_owned(), |created| ago(created, now)),
                bytes(image.size),
            ]
        })
        .collect();
    let head = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0)
    };
    let [repository, tag, id, created] = [0, 1, 2, 3].map(width);
    let mut text = format!(
        "{HEADING}{:repository$}   {:tag$}   {:id$}   {:created$}   {}{HEADING:#}\n",
        head[0], head[1], head[2], head[3], head[4]
    );
    for row in &rows {
        let _ = writeln!(
            text,
            "{:repository$}   {:tag$}   {:id$}   {:created$}   {}",
            row[0], row[1], row[2], row[3], row[4]
        );
    }
    text
}

/// A time as people say it; what is no time is shown as it is.
pub fn ago(created: &str, now: Timestamp) -> String {
    let Ok(then) = created.parse::<Timestamp>() else { return created.to_owned() };
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    // Images that are built reproducibly say 1970, which is no time to tell.
    if then.as_second() <= 0 {
        return "N/A".to_owned();
    }
    let units = [
        (365 * 86400, "year"),
        (30 * 86400, "month"),
        (7 * 86400, "week"),
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds >= 2 * unit).unwrap_or((1, "second"));
    let count = seconds / unit;
    format!("{count} {name}{} ago", if count == 1 { "" } else { "s" })
}

/// Bytes in docker's units, with three digits.
pub fn bytes(size: u64) -> String {
    lab::report::figures::docker_size(size, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_largest_unit_that_fits_twice() {
        let now: Timestamp = "2024-03-01T00:00:00Z".parse().unwrap();
        for (created, text) in [
            ("2024-02-29T23:59:59Z", "1 second ago"),
            ("2024-02-29T22:30:00Z", "90 minutes ago"),
            ("2024-02-27T00:00:00+00:00", "3 days ago"),
            ("2021-01-01T00:00:00.123Z", "3 years ago"),
            ("1970-01-01T00:00:00Z", "N/A"),
            ("2030-01-01T00:00:00Z", "0 seconds ago"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(ago(created, now), text);
        }
    }
}
