//! Building images: every instruction of a Dockerfile, by `lab build` and by the real docker client's builder.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use common::daemon::{Daemon, eventually};
use common::{Lab, Output, Wall, finish, image, skip};
use serde_json::Value;

/// A lab with a folder to build from.
struct Place {
    lab: Lab,
    folder: PathBuf,
}

impl Place {
    fn new(what: &str) -> Option<Self> {
        if let Some(why) = Wall::Container.missing() {
            skip(what, why);
            return None;
        }
        let lab = Lab::empty();
        let folder = lab.home().join("context");
        fs::create_dir_all(&folder).expect("a directory");
        Some(Self { lab, folder })
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect("a file");
        self
    }

    fn try_build(&self, dockerfile: &str, more: &[&str]) -> Output {
        self.write("Dockerfile", dockerfile);
        let mut arguments = vec!["build", "-t", "app"];
        arguments.extend(more);
        let folder = self.folder.to_str().expect("a text");
        arguments.push(folder);
        self.lab.run(&arguments, "")
    }

    /// Builds what must be possible; its output.
    fn build(&self, dockerfile: &str, more: &[&str]) -> String {
        let output = self.try_build(dockerfile, more);
        assert_eq!(output.code, 0, "{dockerfile}\n{}\n{}", output.stdout, output.stderr);
        output.stdout
    }

    /// What a command in the image prints.
    fn says(&self, script: &str) -> String {
        let output = self.lab.run(&["run", "--entrypoint", "sh", "app", "-c", script], "");
        assert_eq!(output.code, 0, "{script}: {output:?}");
        output.stdout.trim_end().to_owned()
    }

    fn config(&self) -> Value {
        let output = self.lab.run(&["image", "inspect", "app"], "");
        serde_json::from_str::<Value>(&output.stdout).expect("JSON")[0].clone()
    }
}

#[test]
fn variables_reach_as_far_as_the_reference_says() {
    let Some(place) = Place::new("container: build: variables") else { return };
    place.build(
        "ARG BASE=lab\nARG SHARED=global\nARG UNSEEN=unseen\nFROM ${BASE:-nothing}\nARG SHARED\nARG OWN=own\n\
         ENV A=\"$SHARED ${UNSEEN:-not seen}\" B=$OWN\nENV B=two C=$B D=${B%w*}\nARG B=argument\n\
         RUN echo \"$A|$B|$C|$D|$OWN|$TARGETARCH\" >/seen\nARG TARGETARCH\nRUN echo $TARGETARCH >>/seen\n",
        &["--build-arg", "OWN=given"],
    );
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    assert_eq!(place.says("cat /seen"), format!("global not seen|two|given|given|given|\n{architecture}"));
    assert!(place.says("env").contains("C=given"), "of one line, all see what was before it");
    let said = place.build(
        "FROM lab\nRUN echo $http_proxy >/proxy\n",
        &["--build-arg", "http_proxy=http://p:1", "--build-arg", "FOO=1"],
    );
    assert!(said.contains("[\"FOO\"] were not consumed"), "{said}");
    assert_eq!(place.says("cat /proxy; echo ${http_proxy:-none}"), "http://p:1\nnone");
    let refused = place.try_build("FROM lab\nARG X\nRUN true\nENV Y=\"${X:?is needed}\"\n", &[]);
    assert!(refused.code == 1 && refused.stderr.contains("Dockerfile:4: X: is needed"), "{refused:?}");
}

#[test]
fn files_are_copied_with_patterns_owners_modes_and_from_stages() {
    let Some(place) = Place::new("container: build: copy") else { return };
    place
        .write("a1.txt", "a1")
        .write("a2.txt", "a2")
        .write("b.md", "b")
        .write("deep/x", "x")
        .write("deep/er/y", "y");
    place.write("secret.key", "no").write(".dockerignore", "*.key\n*.md\n!b.md\n");
    place.build(
        "FROM lab AS Source\nRUN mkdir /out && echo made >/out/made\n\
         FROM lab\nWORKDIR /srv\nCOPY a[12].txt b.?d ./\nCOPY deep .\nCOPY --chown=lab:lab --chmod=0640 a1.txt /owned\n\
         COPY --link --from=source /out /out/\nCOPY --from=0 /out/made renamed\nCOPY --from=lab /etc/os-release other\n\
         COPY . /all/\nRUN [\"sh\", \"-c\", \"ls -la /owned >/listing\"]\n",
        &[],
    );
    assert_eq!(place.says("cat a1.txt a2.txt b.md x er/y renamed /out/made"), "a1a2bxymade\nmade");
    assert!(place.says("cat /listing").contains("-rw-r-----"));
    assert_eq!(place.says("[ -e /all/secret.key ] || echo ignored"), "ignored");
    for (dockerfile, words) in [
        ("FROM lab\nCOPY nothing /\n", "Dockerfile:2: COPY failed"),
        ("FROM lab\nCOPY secret.key /\n", "excluded by .dockerignore"),
        ("FROM lab\nCOPY a1.txt a2.txt /both\n", "must be a directory and end with a /"),
        ("FROM lab\nCOPY --from=7 /a /b\n", "no such stage"),
        ("FROM lab\nCOPY --form=x /a /b\n", "did you mean --from?"),
        ("FROM lab\nCOPY --chmod=rwx a1.txt /b\n", "octal"),
        ("FROM lab\nADD https://example.com/x /\n", "fetches nothing"),
        ("FROM lab\nCOPY ../../etc/passwd /\n", "COPY failed"),
    ] {
        let output = place.try_build(dockerfile, &[]);
        assert!(output.code == 1 && output.stderr.contains(words), "{dockerfile}: {output:?}");
    }
}

#[test]
fn archives_are_unpacked_by_add_and_here_documents_become_files() {
    let Some(place) = Place::new("container: build: add") else { return };
    place.write("tree/one", "one").write("plain.txt", "plain");
    for (name, flag) in [("a.tar", "-cf"), ("a.tar.gz", "-czf"), ("a.tar.xz", "-cJf")] {
        let status = std::process::Command::new("tar")
            .current_dir(&place.folder)
            .args([flag, name, "-C", "tree", "."])
            .status()
            .expect("tar is installed");
        assert!(status.success());
    }
    place.build(
        "FROM lab\nARG WHO=eva\nADD a.tar /tar/\nADD a.tar.gz /gz/\nADD a.tar.xz /xz/\nADD plain.txt /\nCOPY a.tar /\n\
         COPY <<EOF /hello.txt\nhello $WHO\n  \"indented\"\nEOF\nCOPY <<'RAW' <<-\"TABS\" /docs/\n$WHO\nRAW\n\tno tabs\nTABS\n\
         RUN <<EOF\necho first >/script\necho second >>/script\nEOF\n",
        &[],
    );
    assert_eq!(
        place.says("cat /tar/one /gz/one /xz/one /plain.txt; [ -f /a.tar ] && echo kept"),
        "oneoneoneplainkept"
    );
    assert_eq!(
        place.says("cat /hello.txt /docs/RAW /docs/TABS /script"),
        "hello eva\n  \"indented\"\n$WHO\nno tabs\nfirst\nsecond"
    );
}

#[test]
fn the_configuration_is_what_the_instructions_say() {
    let Some(place) = Place::new("container: build: configuration") else { return };
    place.build(
        "# escape=`\nFROM lab\nMAINTAINER eva\nSHELL [\"/bin/sh\", \"-ec\"]\nCMD echo hello `\n  there\nENTRYPOINT [\"sh\", \"-c\"]\n\
         EXPOSE 80 53/udp\nVOLUME /data\nUSER lab\nWORKDIR /srv\nWORKDIR deep/../er\nLABEL a=1 \"b c\"='2 3'\nSTOPSIGNAL SIGUSR1\n\
         HEALTHCHECK --interval=30s --timeout=3s --start-period=1m --retries=2 `\n  CMD wget -q localhost || exit 1\n",
        &["--label", "mine=yes"],
    );
    let described = place.config();
    let config = &described["Config"];
    assert_eq!(config["Cmd"], serde_json::json!(["/bin/sh", "-ec", "echo hello   there"]));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&"lab".into(), &"/srv/er".into()));
    assert_eq!(config["Labels"]["b c"], "2 3");
    assert_eq!(config["Labels"]["mine"], "yes");
    assert_eq!(config["Healthcheck"]["Retries"], 2);
    assert_eq!(config["Healthcheck"]["Interval"], 30_000_000_000_i64);
    assert_eq!((&config["StopSignal"], &described["Author"]), (&"SIGUSR1".into(), &"eva".into()));
    assert_eq!(config["ExposedPorts"], serde_json::json!({"80/tcp": {}, "53/udp": {}}));
    // A trigger waits for the next build.
    place.build("FROM lab\nONBUILD RUN echo triggered >/mark\nONBUILD ENV T=1\n", &[]);
    assert_eq!(place.lab.run(&["tag", "app", "base"], "").code, 0);
    let said = place.build("FROM base\nRUN cat /mark\n", &[]);
    assert!(
        said.contains("# Executing 2 build triggers") && place.says("echo $T; cat /mark") == "1\ntriggered",
        "{said}"
    );
    assert!(place.config()["Config"]["OnBuild"].is_null());
}

#[test]
fn steps_see_mounts_that_their_layers_do_not_have() {
    let Some(place) = Place::new("container: build: mounts") else { return };
    place.write("input/file", "from the context").write("token", "secret");
    let secret = format!("id=token,src={}", place.folder.join("token").display());
    let dockerfile = "FROM lab\nRUN --mount=type=cache,target=/cache echo x >>/cache/count && wc -l </cache/count >/count\n\
        RUN --mount=type=bind,source=input,target=/in cat /in/file >/copied && ! touch /in/x\n\
        RUN --mount=type=tmpfs,target=/scratch echo gone >/scratch/x\nRUN --mount=type=secret,id=token cat /run/secrets/token >/told\n";
    place.build(dockerfile, &["--secret", &secret]);
    assert_eq!(place.says("cat /copied /told; for x in /cache/count /in/file /scratch/x; do [ -e $x ] && echo $x; done; true"), "from the contextsecret");
    place.build(dockerfile, &["--secret", &secret, "--no-cache"]);
    assert_eq!(place.says("cat /count").trim(), "2", "the cache outlives the build");
    for (flag, words) in [
        ("type=cachе,target=/x", "not supported"),
        ("type=chace,target=/x", "did you mean cache?"),
        ("type=bind,source=../../etc,target=/x", "not found in the build's context"),
        ("type=secret,id=other,required=true", "--secret id=other"),
        ("type=tmpfs", "target is missing"),
    ] {
        let output = place.try_build(&format!("FROM lab\nRUN --mount={flag} true\n"), &[]);
        assert!(output.code == 1 && output.stderr.contains(words), "{flag}: {output:?}");
    }
}

#[test]
fn what_is_wrong_is_told_with_file_line_place_and_what_was_meant() {
    let Some(place) = Place::new("container: build: errors") else { return };
    for (dockerfile, more, words) in [
        ("FROM lab\nRNU true\n", &[][..], "Dockerfile:2: "),
        ("FROM lab\nRNU true\n", &[], "did you mean RUN?"),
        ("FROM lab\nRNU true\n", &[], "\nRNU true\n^"),
        ("RUN true\n", &[], "FROM"),
        ("", &[], "Dockerfile:"),
        ("FROM lab AS test\n", &["--target", "tset"], "did you mean test?"),
        (
            "FROM lab\nRUN exit 7\n",
            &[],
            "Dockerfile:2: The command '/bin/sh -c exit 7' returned a non-zero code: 7",
        ),
        ("FROM lab\nENV X\n", &[], "a value is missing"),
        ("FROM localhost:1/nothing\n", &[], "cannot be reached"),
        ("FROM --platform=linux/s390x lab\n", &[], "linux/s390x"),
    ] {
        let output = place.try_build(dockerfile, more);
        assert!(output.code == 1 && output.stderr.contains(words), "{dockerfile} {words}: {output:?}");
    }
    let output = place.try_build("FROM lab\n", &["-f", "/nowhere/Dockerfile"]);
    assert!(output.code == 1 && output.stderr.contains("Dockerfile"), "{output:?}");
    let output = place.try_build("FROM lab\n", &["--runtime", "vm"]);
    assert!(output.code == 1 && output.stderr.contains("--runtime vm"), "{output:?}");
}

#[test]
fn what_did_not_change_is_not_done_again_and_is_the_same_image() {
    let Some(place) = Place::new("container: build: cache") else { return };
    place.write("one", "1").write("two", "2");
    let dockerfile = "FROM lab\nENV A=1\nCOPY one /\nRUN echo x >/when\nCOPY two /\nCMD [\"true\"]\n";
    place.build(dockerfile, &[]);
    let id = place.config()["Id"].clone();
    let again = place.build(dockerfile, &[]);
    assert_eq!(again.matches("Using cache").count(), 3, "{again}");
    assert_eq!(place.config()["Id"], id, "the same steps are the same image");
    place.write("two", "changed");
    assert_eq!(place.build(dockerfile, &[]).matches("Using cache").count(), 2);
    assert_ne!(place.config()["Id"], id);
    assert_eq!(place.build(dockerfile, &["--no-cache"]).matches("Using cache").count(), 0);
    // Quiet, with the id in a file, up to a stage.
    let file = place.lab.home().join("id");
    let output = place.try_build(
        "FROM lab AS first\nRUN echo first >/stage\nFROM lab\nRUN exit 1\n",
        &["--target", "FIRST", "-q", "--iidfile", file.to_str().expect("a text")],
    );
    assert_eq!(
        (output.code, output.stdout.trim()),
        (0, &*fs::read_to_string(&file).expect("a file")),
        "{output:?}"
    );
    assert_eq!(place.says("cat /stage"), "first");
    // A Dockerfile or a context on standard input.
    let folder = place.folder.to_str().expect("a text").to_owned();
    let output =
        place.lab.run(&["build", "-t", "app", "-f", "-", &folder], "FROM lab\nCOPY one /from-stdin\n");
    assert!(output.code == 0 && place.says("cat /from-stdin") == "1", "{output:?}");
    let output = place.lab.run(&["build", "-t", "app", "-"], "FROM lab\nRUN echo alone >/alone\n");
    assert!(output.code == 0 && place.says("cat /alone") == "alone", "{output:?}");
}

#[test]
fn two_builds_of_one_tag_at_once_and_garbage_meanwhile_do_no_harm() {
    let Some(place) = Place::new("container: build: at once") else { return };
    if let Some(why) = image::missing() {
        return skip("container: build: at once", why);
    }
    let archive = image::archive(place.lab.home());
    place.lab.run(&["load", "-q", archive.to_str().expect("a text")], "");
    let begin = |text: &str| {
        let mut command = place.lab.command(&["build", "-t", "same:1", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lab starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), text.as_bytes())
            .expect("a Dockerfile");
        child
    };
    let builds: Vec<_> = (0..3)
        .map(|number| begin(&format!("FROM box\nRUN echo {number} >/n; sleep 1\nRUN sleep 0.3\n")))
        .collect();
    eventually("a build begins", || {
        fs::read_dir(place.lab.home().join("data/images/tmp")).is_ok_and(|entries| entries.count() > 0)
    });
    // The base goes while they build from it.
    let removed = place.lab.run(&["rmi", "-f", "box"], "");
    assert_eq!(removed.code, 0, "{removed:?}");
    place.lab.run(&["image", "prune", "-f"], "");
    for build in builds {
        let output = finish(build);
        assert!(output.code == 0 && output.stdout.contains("Successfully tagged same:1"), "{output:?}");
    }
    assert!(!place.lab.home().join("data/images/garbage").exists(), "what was put off is done");
    let output = place.lab.run(&["run", "same:1", "cat", "/n"], "");
    assert!(output.code == 0 && ["0\n", "1\n", "2\n"].contains(&&*output.stdout), "{output:?}");
}

#[test]
fn the_docker_client_s_builder_is_served() {
    let Some(daemon) = Daemon::start("container: docker build") else { return };
    let folder = daemon.lab.home().join("context");
    fs::create_dir_all(&folder).expect("a directory");
    fs::write(folder.join("file"), "content").expect("a file");
    fs::write(
        folder.join("other.Dockerfile"),
        "FROM lab AS a\nARG V=1\nCOPY file /\nRUN echo $V >/v\nHEALTHCHECK NONE\nFROM lab\nRUN false\n",
    )
    .expect("a file");
    let build = |arguments: &[&str], stdin: &str| {
        let mut all = vec!["build"];
        all.extend(arguments);
        let mut child = daemon.client(&all).env("DOCKER_BUILDKIT", "0").spawn().expect("docker starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), stdin.as_bytes()).expect("input");
        finish(child)
    };
    let (context, file) = (folder.to_str().expect("a text"), folder.join("other.Dockerfile"));
    let file = file.to_str().expect("a text");
    let id = daemon.lab.home().join("id");
    let output = build(
        &[
            "-t",
            "app:1",
            "-t",
            "app:2",
            "-f",
            file,
            "--target",
            "a",
            "--build-arg",
            "V=2",
            "--label",
            "l=1",
            "--iidfile",
            id.to_str().expect("a text"),
            context,
        ],
        "",
    );
    for words in [
        "Step 1/8 : FROM lab AS a",
        "Successfully built ",
        "Successfully tagged app:1",
        "Successfully tagged app:2",
    ] {
        assert!(output.code == 0 && output.stdout.contains(words), "{words}: {output:?}");
    }
    assert_eq!(daemon.says(&["run", "--rm", "app:2", "cat", "/file", "/v"]), "content2");
    assert_eq!(
        fs::read_to_string(&id).expect("a file"),
        daemon.says(&["images", "-q", "--no-trunc", "app:1"])
    );
    assert_eq!(
        daemon.says(&["inspect", "-f", "{{.Config.Labels.l}} {{.Config.Healthcheck.Test}}", "app:1"]),
        "1 [NONE]"
    );
    let output = build(&["-q", "-"], "FROM lab\nRUN echo from stdin\n");
    assert!(
        output.code == 0 && output.stdout.starts_with("sha256:") && output.stdout.lines().count() == 1,
        "{output:?}"
    );
    let output = build(&["-"], "FROM lab\nRUN exit 9\n");
    assert!(output.code == 9 || output.code == 1, "{output:?}");
    assert!(output.stderr.contains("returned a non-zero code: 9"), "{output:?}");
    daemon.says(&["builder", "prune", "-f"]);
}
