//! The process: which program with which arguments, environment and directory, from the image and the flags.

use oci_spec::image::Config;
use oci_spec::runtime::UserBuilder;

use super::{Error, Request};
use crate::image::users::User;

/// Where programs are looked for unless the image says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program and its arguments.
///
/// The image has an ENTRYPOINT and a CMD; the user may give a command, and another entry point.
/// - A command given replaces the image's CMD.
/// - An entry point given replaces the image's ENTRYPOINT *and* drops its CMD, which was written for that ENTRYPOINT. An
///   empty one (`--entrypoint ""`) leaves no entry point.
/// - What runs is the entry point followed by the command.
///
/// # Errors
/// Where nothing is left to run.
pub fn arguments(image: Option<&Config>, request: &Request) -> Result<Vec<String>, Error> {
    let image_entrypoint = image.and_then(|config| config.entrypoint().as_deref()).unwrap_or(&[]);
    let image_command = image.and_then(|config| config.cmd().as_deref()).unwrap_or(&[]);

    let mut arguments = request.entrypoint.clone().unwrap_or_else(|| image_entrypoint.to_vec());
    if !request.command.is_empty() {
        arguments.extend_from_slice(&request.command);
    } else if request.entrypoint.is_none() {
        arguments.extend_from_slice(image_command);
    }
    match arguments.first() {
        None => Err(Error::NoCommand { image: request.image.clone() }),
        Some(program) if program.is_empty() => Err(Error::EmptyCommand),
        Some(_) => Ok(arguments),
    }
}

/// Who the process runs as. A container made without root has one user, root, who is the caller, and may not change its
/// groups (user_namespaces(7)).
///
/// # Errors
/// Another user than root, without root.
pub fn user(user: &User, rootless: bool) -> Result<oci_spec::runtime::User, Error> {
    let builder = UserBuilder::default().uid(user.uid).gid(user.gid);
    if rootless {
        let only = user.uid == 0 && user.gid == 0;
        return if only {
            Ok(builder.build()?)
        } else {
            Err(Error::OnlyRoot { uid: user.uid, gid: user.gid })
        };
    }
    // The primary group is one of the list as well: a file that its group may *not* read stays closed also to a program
    // that drops the primary group (docker's fix of CVE-2022-36109).
    let others = user.groups.iter().filter(|&&gid| gid != user.gid);
    let groups: Vec<u32> = std::iter::once(&user.gid).chain(others).copied().collect();
    Ok(builder.additional_gids(groups).build()?)
}

/// The environment: PATH and HOSTNAME, TERM for a terminal, what the user gave, what the image sets, HOME.
///
/// That is docker's order. A later one of a name replaces the earlier in place; a name without `=` removes it.
pub fn environment(
    image: Option<&Config>,
    given: &[String],
    hostname: &str,
    terminal: bool,
    home: &str,
) -> Vec<String> {
    let mut environment = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    if terminal {
        environment.push("TERM=xterm".to_owned());
    }
    let image = image.and_then(|config| config.env().as_deref()).unwrap_or(&[]);
    let overridden = |variable: &&String| given.iter().any(|other| name(other) == name(variable));
    for variable in given.iter().chain(image.iter().filter(|variable| !overridden(variable))) {
        set(&mut environment, variable);
    }
    if !environment.iter().any(|variable| name(variable) == "HOME") {
        environment.push(format!("HOME={home}"));
    }
    environment
}

fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn set(environment: &mut Vec<String>, variable: &str) {
    let place = environment.iter().position(|other| name(other) == name(variable));
    match (place, variable.contains('=')) {
        (Some(place), true) => variable.clone_into(&mut environment[place]),
        (None, true) => environment.push(variable.to_owned()),
        (Some(place), false) => drop(environment.remove(place)),
        (None, false) => {}
    }
}

/// What `-e` means: `K=V` is itself, `K` takes its value from this process's environment and is removed where that has none.
///
/// # Errors
/// Where there is no name.
pub fn variable(text: &str, own: impl Fn(&str) -> Option<String>) -> Result<String, Error> {
    if name(text).is_empty() {
        return Err(Error::BadVariable { text: text.to_owned() });
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    Ok(own(text).map_or_else(|| text.to_owned(), |value| format!("{text}={value}")))
}

/// The lines of an `--env-file`: as for `-e`; empty lines and those that begin with `#` are skipped. No quoting, as docker.
///
/// # Errors
/// The first line that has no name or a name with a blank in it.
pub fn variables_of_file(text: &str, own: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, Error> {
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match name(line) {
            name if name.contains(char::is_whitespace) => Err(Error::BadVariable { text: line.to_owned() }),
            _ => variable(line, &own),
        })
        .collect()
}

/// The directory the process starts in.
///
/// # Errors
/// Where the path is relative: to what would be anybody's guess.
pub fn directory(image: Option<&Config>, request: &Request) -> Result<String, Error> {
    let image = image.and_then(|config| config.working_dir().as_deref()).filter(|path| !path.is_empty());
    match request.workdir.as_deref().or(image) {
        None => Ok("/".to_owned()),
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        Some(path) => Err(Error::RelativeDirectory { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::ConfigBuilder;

    fn image() -> Config {
        ConfigBuilder::default()
            .entrypoint(vec!["/entry".to_owned(), "--flag".to_owned()])
            .cmd(vec!["default".to_owned()])
            .env(vec!["PATH=/bin".to_owned(), "FROM=image".to_owned()])
            .working_dir("/srv")
            .build()
            .unwrap()
    }

    fn request(entrypoint: Option<&str>, command: &[&str]) -> Request {
        Request {
            entrypoint: entrypoint.map(|words| words.split_whitespace().map(str::to_owned).collect()),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            ..Request::default()
        }
    }

    #[test]
    fn entry_point_and_command_combine_as_in_docker() {
        let cases: [(Option<&str>, &[&str], &[&str]); 5] = [
            (None, &[], &["/entry", "--flag", "default"]),
            (None, &["mine"], &["/entry", "--flag", "mine"]),
            (Some("/sh"), &[], &["/sh"]),
            (Some("/sh"), &["-c", "x"], &["/sh", "-c", "x"]),
            (Some(""), &["mine"], &["mine"]),
        ];
        for (entrypoint, command, runs) in cases {
            assert_eq!(arguments(Some(&image()), &request(entrypoint, command)).unwrap(), runs);
        }
    }

    #[test]
    fn nothing_to_run_is_an_error_that_says_so() {
        assert!(matches!(arguments(None, &request(None, &[])), Err(Error::NoCommand { .. })));
        assert!(matches!(arguments(None, &request(None, &[""])), Err(Error::EmptyCommand)));
    }

    #[test]
    fn the_environment_is_docker_s() {
        let given = ["A=1".to_owned(), "FROM=flag".to_owned()];
        assert_eq!(
            environment(Some(&image()), &given, "host", true, "/root"),
            ["PATH=/bin", "HOSTNAME=host", "TERM=xterm", "A=1", "FROM=flag", "HOME=/root"]
        );
    }

    #[test]
    fn a_name_without_value_removes_the_variable() {
        let given = ["FROM".to_owned(), "HOME=/x".to_owned()];
        let environment = environment(Some(&image()), &given, "host", false, "/root");
        assert_eq!(environment, ["PATH=/bin", "HOSTNAME=host", "HOME=/x"]);
    }

    #[test]
    fn a_variable_named_alone_takes_the_caller_s_value() {
        let own = |name: &str| (name == "SET").then(|| "here".to_owned());
        assert_eq!(variable("SET", own).unwrap(), "SET=here");
        assert_eq!(variable("UNSET", own).unwrap(), "UNSET");
        assert_eq!(variable("A=b=c", own).unwrap(), "A=b=c");
        assert!(variable("=x", own).is_err());
    }

    #[test]
    fn an_environment_file_has_comments_and_no_quotes() {
        let file = "# comment\n\nA=1\n  B=\"two words\"\nSET\n";
        let own = |name: &str| (name == "SET").then(|| "here".to_owned());
        assert_eq!(variables_of_file(file, own).unwrap(), ["A=1", "B=\"two words\"", "SET=here"]);
        assert!(variables_of_file("two words=1", own).is_err());
    }

    #[test]
    fn the_directory_is_the_flag_s_the_image_s_or_the_root() {
        assert_eq!(directory(None, &Request::default()).unwrap(), "/");
        assert_eq!(directory(Some(&image()), &Request::default()).unwrap(), "/srv");
        let relative = Request { workdir: Some("x".into()), ..Request::default() };
        assert!(directory(Some(&image()), &relative).is_err());
    }
}
