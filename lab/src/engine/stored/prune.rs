//! Prune: what nobody uses goes, as far as docker's filters allow.
//!
//! A filter that is not understood is refused, never passed over: what was removed does not come back.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{Engine, Filters};
use crate::engine::{Error, moment};
use crate::image::{Digest, Summary};

/// What a prune may take: by labels, and by age.
#[derive(Debug)]
pub struct Scope<'a> {
    filters: &'a Filters,
    until: Option<Timestamp>,
}

impl<'a> Scope<'a> {
    /// The filters `label`, `label!` and `until`, and those that only one kind of objects has.
    ///
    /// # Errors
    /// A filter that there is not, a moment that is none.
    pub fn of(filters: &'a Filters, more: &[&str]) -> Result<Self, Error> {
        let known: Vec<&str> = ["label", "label!", "until"].iter().chain(more).copied().collect();
        filters.check(&known)?;
        let until = match filters.get("until") {
            None => None,
            Some([only]) => Some(moment::parse(only, Timestamp::now())?),
            Some(_) => return Err(Error::bad("more than one until filter specified")),
        };
        Ok(Self { filters, until })
    }

    /// The moment after which nothing goes, if there is one.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Whether an object with these labels, made at this moment (RFC 3339), may go. One of unknown age is spared where age
    /// counts.
    pub fn takes(&self, created: Option<&str>, labels: &HashMap<String, String>) -> bool {
        let old_enough = self.until.is_none_or(|until| {
            created
                .and_then(|created| created.parse::<Timestamp>().ok())
                .is_some_and(|created| created <= until)
        });
        old_enough && self.filters.fits_labels(labels) && !self.filters.excludes_labels(labels)
    }
}

/// What a prune of images did.
#[derive(Debug, Default)]
pub struct PrunedImages {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// Images that are gone.
    pub deleted: Vec<Digest>,
    /// The bytes that their content took.
    pub freed: u64,
}

impl Engine {
    /// Removes the containers that do not run and fit the filters; tells their ids, and the bytes that they had written.
    ///
    /// # Errors
    /// A filter that there is not; where one cannot be removed.
    pub fn prune_containers(&self, filters: &Filters) -> Result<(Vec<String>, u64), Error> {
        let scope = Scope::of(filters, &[])?;
        let (mut removed, mut freed) = (Vec::new(), 0);
        for record in self.records()?.into_iter().filter(|record| !record.status.is_live()) {
            if scope.takes(Some(&record.created), &record.body.labels.clone().unwrap_or_default()) {
                let bytes = self.written(&record);
                match self.remove(&record, false, false) {
                    Ok(()) => freed += bytes,
                    // Started or removed by somebody else meanwhile.
                    Err(Error::Conflict { .. } | Error::Missing { .. }) => continue,
                    Err(error) => return Err(error),
                }
                removed.push(record.id);
            }
        }
        Ok((removed, freed))
    }

    /// Removes the images without a tag that no container needs and that fit the filters; with the filter
    /// `dangling=false`, also those with one.
    ///
    /// # Errors
    /// A filter that there is not; where they cannot be listed.
    pub fn prune_images(&self, filters: &Filters) -> Result<PrunedImages, Error> {
        let scope = Scope::of(filters, &["dangling"])?;
        let only_dangling = filters.truth("dangling")?.unwrap_or(true);
        let all = self.images().list()?;
        let tagged = |id: Digest| {
            let tag = |image: &Summary| image.name.as_ref().is_some_and(|name| name.tag().is_some());
            all.iter().any(|image| image.id == id && tag(image))
        };
        let mut pruned = PrunedImages::default();
        let mut seen = Vec::new();
        for image in &all {
            if seen.contains(&image.id) || (only_dangling && tagged(image.id)) {
                continue;
            }
            seen.push(image.id);
            if !scope.takes(image.created.as_deref(), &image.labels) {
                continue;
            }
            // One that is needed stays, and so does one that somebody else has just removed.
            let removed = match self.remove_image_wholly(image.id) {
                Err(Error::Conflict { .. } | Error::Image(crate::image::Error::InUse { .. })) => continue,
                removed => removed?,
            };
            pruned.untagged.extend(removed.untagged.iter().map(crate::image::Reference::familiar));
            pruned.deleted.extend(removed.deleted);
            pruned.freed += removed.freed;
        }
        Ok(pruned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(words: &[&str]) -> Filters {
        Filters::from_words(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn age_and_labels_decide_and_what_is_not_understood_is_refused() {
        let old = Some("2020-01-01T00:00:00Z");
        let now = Timestamp::now().to_string();
        let takes = |words: &[&str], created: Option<&str>, pairs: &[(&str, &str)]| {
            Scope::of(&filters(words), &[]).unwrap().takes(created, &labels(pairs))
        };
        assert!(takes(&[], Some(&now), &[]));
        assert!(takes(&["until=24h"], old, &[]) && !takes(&["until=24h"], Some(&now), &[]));
        assert!(!takes(&["until=24h"], None, &[]), "its age is unknown");
        assert!(takes(&["until=2020-01-02T00:00:00Z"], old, &[]) && !takes(&["until=2019-12-31"], old, &[]));
        assert!(takes(&["label=a"], old, &[("a", "1")]) && !takes(&["label=a"], old, &[]));
        assert!(
            !takes(&["label!=keep"], old, &[("keep", "")]) && takes(&["label!=keep"], old, &[("a", "1")])
        );
        assert!(takes(&["label!=keep=yes"], old, &[("keep", "no")]));
        for words in [&["colour=red"][..], &["until=yesterday"], &["until=1h", "until=2h"]] {
            assert!(matches!(Scope::of(&filters(words), &[]), Err(Error::Bad { .. })), "{words:?}");
        }
    }
}
