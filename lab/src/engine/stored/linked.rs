//! `--link`: docker's way from before it had networks with names. In the default network, the environment and `/etc/hosts` of
//! a container tell it where another is; in others a link is a name that its owner alone knows the other by.

use std::fmt::Write as _;

use bollard_stubs::models::ContainerCreateBody;

use super::networks::DEFAULT;
use super::published::{self, Protocol};
use super::{Engine, Record};
use crate::engine::Error;

/// What a container is told of those that it is linked to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Variables of the environment.
    pub environment: Vec<String>,
    /// Lines of `/etc/hosts`.
    pub hosts: String,
}

/// `NAME:ALIAS`, or the name alone; also as docker tells it, `/NAME:/OWN/ALIAS`.
pub(super) fn parse(link: &str) -> Result<(&str, &str), Error> {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    let name = name.trim_start_matches('/');
    let alias = alias.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(Error::bad(format!("bad format for links: {link}: use NAME or NAME:ALIAS")));
    }
    Ok((name, alias))
}

impl Engine {
    /// Refuses links to containers that there are not. In a network of the user's they may come later.
    pub(super) fn check_links(&self, body: &ContainerCreateBody) -> Result<(), Error> {
        let Some(host) = &body.host_config else { return Ok(()) };
        let mode = host.network_mode.as_deref().unwrap_or_default();
        for link in host.links.iter().flatten() {
            let (name, _) = parse(link)?;
            if !matches!(mode, "" | "default" | DEFAULT) {
                continue;
            }
            self.find(name).map_err(|_| Error::bad(format!("could not get container for {name}")))?;
        }
        Ok(())
    }

    /// What a container that is being started is told of those that it is linked to.
    ///
    /// # Errors
    /// Where one of them does not run.
    pub(crate) fn linked(&self, record: &Record) -> Result<Told, Error> {
        let mut told = Told::default();
        if record.network_name() != DEFAULT {
            return Ok(told);
        }
        for link in record.host().links.iter().flatten() {
            let (name, alias) = parse(link)?;
            let other = self.find(name)?;
            let endpoint = self.endpoints_of(&other.id)?.into_iter().find(|place| place.network.is_default());
            if !other.status.is_live() {
                return Err(Error::conflict(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.name, record.name
                )));
            }
            let Some(endpoint) = endpoint else {
                return Err(Error::conflict(format!(
                    "Cannot link to /{}, as it does not belong to the default network: put both into one of yours",
                    other.name
                )));
            };
            let address = endpoint.address;
            let hostname = other.body.hostname.clone().unwrap_or_default();
            let _ = writeln!(told.hosts, "{address}\t{alias} {hostname} {}", other.name);
            let prefix = alias.to_ascii_uppercase().replace('-', "_");
            let mut ports: Vec<(u16, Protocol)> = published::exposed(&other.body);
            ports.sort_unstable();
            if let Some((port, protocol)) = ports.first() {
                told.environment.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
            }
            for (port, protocol) in ports {
                let kind = protocol.to_string().to_ascii_uppercase();
                let one = format!("{prefix}_PORT_{port}_{kind}");
                told.environment.push(format!("{one}={protocol}://{address}:{port}"));
                told.environment.push(format!("{one}_ADDR={address}"));
                told.environment.push(format!("{one}_PORT={port}"));
                told.environment.push(format!("{one}_PROTO={protocol}"));
            }
            told.environment.push(format!("{prefix}_NAME=/{}/{alias}", record.name));
            for variable in other.body.env.iter().flatten().filter(|variable| variable.contains('=')) {
                // Those of every image say nothing about the other.
                if !variable.starts_with("PATH=") && !variable.starts_with("HOME=") {
                    told.environment.push(format!("{prefix}_ENV_{variable}"));
                }
            }
        }
        Ok(told)
    }

    /// Removes a link of a container by its alias.
    ///
    /// # Errors
    /// [`Error::Missing`] where it has no such link.
    pub fn unlink(&self, record: &Record, alias: &str) -> Result<(), Error> {
        let mut body = record.body.clone();
        let links = body.host_config.get_or_insert_default().links.get_or_insert_default();
        let before = links.len();
        links.retain(|link| parse(link).is_ok_and(|(_, other)| other != alias));
        if links.len() == before {
            return Err(Error::Missing { kind: "link", name: format!("/{}/{alias}", record.name) });
        }
        self.note_body(&record.id, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_a_name_and_an_alias_in_several_forms() {
        for link in ["db:mine", "/db:/web/mine", "/db:mine"] {
            assert_eq!(parse(link).unwrap(), ("db", "mine"));
        }
        assert_eq!(parse("db").unwrap(), ("db", "db"));
        for link in ["", ":", "db:", ":x", "a:b:c"] {
            assert!(parse(link).is_err(), "{link}");
        }
    }
}
