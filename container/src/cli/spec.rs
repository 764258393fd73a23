//! `spec`: an example configuration to begin with.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::arguments::{self, Arguments, Word};
use super::{Failure, Outcome};

const HELP: &str = "\
Write an example configuration.

Usage: spec [OPTIONS]

  -b, --bundle DIR            Where to write config.json (default: .)
  -f, --file FILE             Another name for it
      --rootless              For an ordinary user";

/// The example: what engines give a container by default, with a shell to run.
const EXAMPLE: &[u8] = include_bytes!("example.json");

/// `spec`.
pub(super) fn spec(arguments: Arguments) -> Outcome {
    let mut arguments = arguments.for_command(HELP);
    let (mut bundle, mut file, mut rootless) = (PathBuf::from("."), None, false);
    while let Some(word) = arguments.next()? {
        match word {
            Word::Name(name) => return Err(Failure::new(format!("spec takes no name; {name:?} is one"))),
            Word::Option(option) => match option.as_str() {
                "-b" | "--bundle" => bundle = arguments.path()?,
                "--rootless" => rootless = arguments.flag()?,
                "-f" | "--file" => file = Some(arguments.path()?),
                option => return arguments::unknown(option),
            },
        }
    }
    let path = bundle.join(file.unwrap_or_else(|| "config.json".into()));
    if path.exists() {
        return Err(Failure::new(format!("{} exists already; remove it first", path.display())));
    }
    let mut spec: Value =
        serde_json::from_slice(EXAMPLE).map_err(|error| Failure::new(format!("the example: {error}")))?;
    if rootless {
        make_rootless(&mut spec);
    }
    std::fs::write(&path, format!("{spec:#}\n"))
        .map_err(|error| Failure::new(format!("write {}: {error}", path.display())))?;
    Ok(0)
}

/// What an ordinary user may do: the own id as root of a user namespace, no network namespace, since nobody would
/// connect it, the host's /sys, which belongs to the network namespace, and no limits.
fn make_rootless(spec: &mut Value) {
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut spec["linux"];
    linux["uidMappings"] = map(rustix::process::geteuid().as_raw());
    linux["gidMappings"] = map(rustix::process::getegid().as_raw());
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    if let Some(object) = linux.as_object_mut() {
        object.remove("resources");
    }
    let Some(mounts) = spec["mounts"].as_array_mut() else { return };
    for mount in mounts {
        if mount["destination"] == "/sys" {
            let options = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": options});
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5"); // there is no group 5 in the map
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_example_is_a_configuration() {
        let mut spec: Value = serde_json::from_slice(EXAMPLE).unwrap();
        for _ in 0..2 {
            container::spec::parse_spec(spec.to_string().as_bytes(), Path::new("")).unwrap();
            make_rootless(&mut spec);
        }
    }
}
