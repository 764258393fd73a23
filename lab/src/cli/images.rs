//! `lab images`: the images at hand.

use std::process::ExitCode;

use jiff::Timestamp;
use lab::engine::stored::{Engine, Filters, ImageEntry};
use lab::image::Reference;
use serde_json::{Value, json};

use super::columns;

/// List the images at hand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// All images; there are none that are hidden, so this changes nothing
    #[arg(short, long)]
    all: bool,
    /// Show the digests by which registries know them
    #[arg(long)]
    digests: bool,
    /// Only those that fit: reference=PATTERN, dangling=true, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// A Go template for each, such as '{{.Repository}}:{{.Tag}}', one behind `table`, or json
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "quiet")]
    format: Option<String>,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// As one JSON array, with full ids, times and bytes
    #[arg(long, conflicts_with_all = ["quiet", "format"])]
    json: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Only this repository's, or this image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

const REPOSITORY: (&str, &str) = ("REPOSITORY", "Repository");
const TAG: (&str, &str) = ("TAG", "Tag");
const DIGEST: (&str, &str) = ("DIGEST", "Digest");
const REST: [(&str, &str); 3] = [("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")];
/// What only templates show.
const MORE: (&str, &str) = ("CREATED AT", "CreatedAt");

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let mut filters = Filters::from_words(&args.filter)?;
    if let Some(reference) = &args.reference {
        filters.add("reference", reference);
    }
    let images = engine.list_images(&filters)?;
    let text = if args.json {
        let images: Vec<Value> = images.iter().map(object).collect();
        format!("{}\n", serde_json::to_string_pretty(&images)?)
    } else if args.quiet {
        images.iter().map(|image| id(image, args.no_trunc) + "\n").collect()
    } else {
        let rows = images.iter().flat_map(|image| rows(image, &args, Timestamp::now())).collect::<Vec<_>>();
        let digest = args.digests.then_some(DIGEST);
        let shown: Vec<_> = [REPOSITORY, TAG].into_iter().chain(digest).chain(REST).collect();
        columns::list(args.format.as_deref(), &shown, &[DIGEST, MORE], &rows)?
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn object(image: &ImageEntry) -> Value {
    let familiar = |names: &[Reference]| names.iter().map(Reference::familiar).collect::<Vec<_>>();
    json!({
        "id": image.id,
        "names": familiar(&image.tags),
        "digests": familiar(&image.digests),
        "created": image.created,
        "size": image.size,
        "labels": image.labels,
    })
}

fn id(image: &ImageEntry, full: bool) -> String {
    if full { image.id.to_string() } else { image.id.hex()[..12].to_owned() }
}

/// A line for each tag; for one without, a line for each repository that knows it by a digest, or one of nothing.
fn rows(image: &ImageEntry, args: &Args, now: Timestamp) -> Vec<Value> {
    let none = || "<none>".to_owned();
    let digest_of = |repository: &str| {
        let known = image.digests.iter().find(|name| name.familiar_repository() == repository);
        known.and_then(Reference::digest).map_or_else(none, |digest| digest.to_string())
    };
    let row = |repository: String, tag: String, digest: String| {
        json!({
            "Repository": repository, "Tag": tag, "Digest": digest, "ID": id(image, args.no_trunc),
            "CreatedSince": image.created.as_deref().map_or_else(|| "N/A".to_owned(), |created| ago(created, now)),
            "CreatedAt": image.created.clone().unwrap_or_else(|| "N/A".to_owned()), "Size": bytes(image.size),
        })
    };
    if image.tags.is_empty() && image.digests.is_empty() {
        return vec![row(none(), none(), none())];
    }
    let named = if image.tags.is_empty() { &image.digests } else { &image.tags };
    let line = |name: &Reference| {
        let repository = name.familiar_repository();
        let digest = digest_of(&repository);
        row(repository, name.tag().map_or_else(none, str::to_owned), digest)
    };
    named.iter().map(line).collect()
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
