//! Removing images as the engine has it: a container keeps the image that it was made from.

use super::{Engine, Record};
use crate::engine::Error;
use crate::image::{Digest, Image, Nameless, Reference, Removal, Removed};

impl Engine {
    /// Removes a name of an image, or the image. One that a container was made from stays, unless forced; one from which a
    /// container runs stays in any case.
    ///
    /// # Errors
    /// [`Error::Conflict`] where a container needs it, with docker's words, which scripts read.
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Removed, Error> {
        let target = self.images().target(name)?;
        let users = self.users(target.id)?;
        let (user, running) = (users.first(), users.iter().find(|user| user.status.is_live()));
        let short = &target.id.hex()[..12];
        let conflict = |force: &str, why: String| {
            Err(Error::conflict(format!("conflict: unable to delete {name} ({force}) - {why}")))
        };
        match (&target.by_name, user) {
            (Some(_), Some(user)) if !force && target.is_single() => {
                return Err(Error::conflict(format!(
                    "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its \
                     referenced image {short}",
                    user.short_id()
                )));
            }
            (None, _) if running.is_some() => {
                let user = running.map(Record::short_id).unwrap_or_default();
                return conflict(
                    "cannot be forced",
                    format!("image is being used by running container {user}"),
                );
            }
            (None, Some(user)) if !force => {
                let user = user.short_id();
                return conflict(
                    "must be forced",
                    format!("image is being used by stopped container {user}"),
                );
            }
            (None, _) if !force && !target.is_single() => {
                return conflict("must be forced", "image is referenced in multiple repositories".to_owned());
            }
            _ => {}
        }
        let nameless = match (running, user) {
            (Some(_), _) => Nameless::Stays,
            (None, Some(_)) => Nameless::Hides,
            (None, None) => Nameless::Goes,
        };
        let removal = Removal { all_names: force, even_used: force, nameless };
        let removed = self.images().remove_by(name, removal)?;
        self.tell_removed(target.id, &removed)?;
        Ok(removed)
    }

    /// The images that names mean, each with the names under which it was asked for.
    ///
    /// # Errors
    /// Where there is no such image.
    pub fn images_to_save(&self, names: &[String]) -> Result<Vec<(Image, Vec<Reference>)>, Error> {
        let store = self.images_with_embedded()?;
        let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
        for name in names {
            let image = store.resolve(name)?;
            // One that was asked for by its id is saved without a name.
            let known = name.parse::<Reference>().ok().filter(|name| image.name() == Some(name));
            match images.iter_mut().find(|(other, _)| other.id() == image.id()) {
                Some((_, names)) => names.extend(known),
                None => images.push((image, known.into_iter().collect())),
            }
        }
        Ok(images)
    }

    /// Removes an image with all its names, unless somebody needs it.
    pub(super) fn remove_image_wholly(&self, id: Digest) -> Result<Removed, Error> {
        if let Some(user) = self.users(id)?.first() {
            return Err(Error::conflict(format!("image is being used by container {}", user.short_id())));
        }
        // What runs from it without being stored holds a lease.
        let removal = Removal { all_names: true, ..Removal::default() };
        let removed = self.images().remove_by(&id.to_string(), removal)?;
        self.tell_removed(id, &removed)?;
        Ok(removed)
    }

    fn users(&self, id: Digest) -> Result<Vec<Record>, Error> {
        let id = id.to_string();
        Ok(self.records()?.into_iter().filter(|record| record.image_id == id).collect())
    }

    fn tell_removed(&self, id: Digest, removed: &Removed) -> Result<(), Error> {
        let id = id.to_string();
        for name in &removed.untagged {
            self.tell("image", "untag", &id, &[("name", &name.familiar())])?;
        }
        if removed.deleted.is_some() {
            self.tell("image", "delete", &id, &[])?;
        }
        Ok(())
    }

    /// After a container's end: its image may have been removed while it was there.
    pub(super) fn release_image(&self, record: &Record) -> Result<(), Error> {
        let Ok(id) = record.image_id.parse::<Digest>() else { return Ok(()) };
        if self.users(id)?.is_empty() { Ok(self.images().release(id)?) } else { Ok(()) }
    }
}
