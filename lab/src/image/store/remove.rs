//! Removing images: a name, or all that an id means.

use std::fs::File;

use oci_spec::image::Descriptor;
use rustix::fs::FlockOperation;

use super::index::{hide, name_of};
use super::{Store, lock};
use crate::image::digest::Digest;
use crate::image::error::{Error, Result};
use crate::image::reference::Reference;

/// What a removal did.
#[derive(Debug, Default)]
pub struct Removed {
    /// The names that are gone.
    pub untagged: Vec<Reference>,
    /// The id of the image whose last name that was; its content goes as soon as nobody uses it.
    pub deleted: Option<Digest>,
    /// The bytes of content that went at once.
    pub freed: u64,
}

/// What a removal would be about.
#[derive(Debug)]
pub struct Target {
    /// The image's id.
    pub id: Digest,
    /// The name, where the image was asked for by it and not by its id.
    pub by_name: Option<Reference>,
    /// All names of the image.
    pub names: Vec<Reference>,
}

impl Target {
    /// Whether all names are in one repository, with one tag at most: then they go with the image (moby,
    /// `isSingleReference`).
    pub fn is_single(&self) -> bool {
        let tags = self.names.iter().filter(|name| name.tag().is_some()).count();
        let first = self.names.first().map(Reference::familiar_repository);
        tags <= 1 && self.names.iter().all(|name| Some(name.familiar_repository()) == first)
    }
}

/// What becomes of an image that has lost its last name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nameless {
    /// It goes.
    #[default]
    Goes,
    /// It stays in the list, for what runs from it.
    Stays,
    /// It stays for those who know its whole id, a stopped container, and is not listed. See [`Store::release`].
    Hides,
}

/// How far a removal goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Removal {
    /// Also an image with names in several repositories.
    pub all_names: bool,
    /// Also where somebody holds a lease on the image.
    pub even_used: bool,
    pub nameless: Nameless,
}

impl Store {
    /// What a name, an id or the beginning of an id means to a removal.
    ///
    /// # Errors
    /// Where there is no such image.
    pub fn target(&self, asked: &str) -> Result<Target> {
        let found = self.find(asked)?;
        let by_name = asked.parse::<Reference>().ok().filter(|asked| {
            // By a digest as well as by the whole name: both are this entry's.
            name_of(&found).is_some_and(|name| name == *asked || asked.digest().is_some())
        });
        let by_name = by_name.and_then(|_| name_of(&found));
        let id = self.id_or_digest(&found)?;
        let all = self.read_index()?;
        let mut names = Vec::new();
        for other in &all {
            if self.id_or_digest(other)? == id {
                names.extend(name_of(other));
            }
        }
        Ok(Target { id, by_name, names })
    }

    /// A damaged image can be removed, too: it is known by its manifest's digest.
    fn id_or_digest(&self, descriptor: &Descriptor) -> Result<Digest> {
        let digest = Digest::try_from(descriptor.digest())?;
        Ok(self.id_of(descriptor).unwrap_or(digest))
    }

    /// Removes a name or, given an id, the image with all its names, and collects what nobody needs any more.
    ///
    /// # Errors
    /// Where there is no such image, where its last name would go while a sandbox uses it (unless forced), or where an
    /// id means an image with names in several repositories (unless forced).
    pub fn remove(&self, asked: &str, force: bool) -> Result<Removed> {
        self.remove_by(asked, Removal { all_names: force, even_used: force, nameless: Nameless::Goes })
    }

    /// As [`Store::remove`], with finer choices.
    pub(crate) fn remove_by(&self, asked: &str, removal: Removal) -> Result<Removed> {
        let Removal { nameless, .. } = removal;
        let target = self.target(asked)?;
        if target.by_name.is_none() && !target.is_single() && !removal.all_names {
            return Err(Error::Names { image: asked.to_owned(), count: target.names.len() });
        }
        let mut removed = self.change_index(|descriptors| {
            let mut ours = Vec::with_capacity(descriptors.len());
            for descriptor in descriptors.iter() {
                ours.push(self.id_or_digest(descriptor)? == target.id);
            }
            let mut going: Vec<bool> = descriptors
                .iter()
                .zip(&ours)
                .map(|(other, ours)| *ours && (target.by_name.is_none() || name_of(other) == target.by_name))
                .collect();
            // With the last tag of a repository go the digests that it is known by there.
            if let Some(name) = target.by_name.as_ref().filter(|name| name.tag().is_some()) {
                let repository = name.familiar_repository();
                let of_it = |other: &Descriptor| {
                    name_of(other).filter(|other| other.familiar_repository() == repository)
                };
                let tag_left = descriptors.iter().enumerate().any(|(at, other)| {
                    ours[at] && !going[at] && of_it(other).is_some_and(|other| other.tag().is_some())
                });
                if !tag_left {
                    for (at, other) in descriptors.iter().enumerate() {
                        going[at] |= ours[at] && of_it(other).is_some();
                    }
                }
            }
            let last = ours == going;
            if last && !removal.even_used {
                for (descriptor, _) in descriptors.iter().zip(&ours).filter(|(_, ours)| **ours) {
                    if self.is_used(Digest::try_from(descriptor.digest())?) {
                        return Err(Error::InUse { image: asked.to_owned() });
                    }
                }
            }
            let deleted = (last && nameless != Nameless::Stays).then_some(target.id);
            let mut removed = Removed { deleted, ..Removed::default() };
            let mut left = Vec::with_capacity(descriptors.len());
            let mut kept = None;
            for (mut descriptor, going) in std::mem::take(descriptors).into_iter().zip(going) {
                if !going {
                    left.push(descriptor);
                    continue;
                }
                removed.untagged.extend(name_of(&descriptor));
                descriptor.set_annotations(None);
                kept = Some(descriptor);
            }
            if let Some(mut descriptor) = kept.filter(|_| last && nameless != Nameless::Goes) {
                if nameless == Nameless::Hides {
                    hide(&mut descriptor);
                }
                left.push(descriptor);
            }
            *descriptors = left;
            Ok(removed)
        })?;
        removed.freed = self.collect_garbage()?.unwrap_or(0);
        Ok(removed)
    }

    /// Lets go of an image that was kept for a container which is gone now.
    ///
    /// # Errors
    /// Where the index cannot be written.
    pub fn release(&self, id: Digest) -> Result<()> {
        let mut ours = Vec::new();
        for descriptor in self.read_index()? {
            ours.push(super::index::is_hidden(&descriptor) && self.id_or_digest(&descriptor)? == id);
        }
        if !ours.contains(&true) {
            return Ok(());
        }
        self.change_index(|descriptors| {
            descriptors.retain(|other| {
                !(super::index::is_hidden(other) && self.id_or_digest(other).is_ok_and(|other| other == id))
            });
            Ok(())
        })?;
        self.collect_garbage().map(drop)
    }

    /// Whether somebody holds a lease on the image; see [`super::Store`]'s module text.
    fn is_used(&self, manifest: Digest) -> bool {
        File::open(self.blob_path(manifest))
            .is_ok_and(|file| lock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
    }
}
