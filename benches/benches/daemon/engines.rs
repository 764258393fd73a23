//! The engines that race: ours and dockerd, each with its state in a folder of the bench's own, and podman.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use benches::race::Contender;
use lab::image::{Store, embedded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Why a bench cannot go on.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The image in every engine.
pub const IMAGE: &str = "bench-daemon:latest";

/// How long an engine may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that answers on a socket, until it is dropped.
pub struct Engine {
    pub name: &'static str,
    pub docker: PathBuf,
    pub home: PathBuf,
    socket: PathBuf,
    daemon: Child,
}

impl Engine {
    /// `lab daemon`.
    pub fn lab(lab: &Path, docker: &Path, place: &Path, archive: &Path) -> Result<Self, Failure> {
        let home = place.join("lab");
        std::fs::create_dir(&home)?;
        let socket = home.join("d.sock");
        let mut command = Command::new(lab);
        command.arg("daemon").arg("--socket").arg(&socket).env("LAB_HOME", &home);
        Self::start("lab daemon", command, docker, home, socket, archive)
    }

    /// dockerd in mount and network namespaces of its own (`unshare(1)`), so that nothing of it touches the machine.
    pub fn dockerd(docker: &Path, place: &Path, archive: &Path) -> Result<Self, Failure> {
        let home = place.join("dockerd");
        std::fs::create_dir(&home)?;
        let script = r#"mount --make-rprivate / && ip link set lo up 2>/dev/null
            exec dockerd --data-root "$D/data" --exec-root "$D/exec" -H "unix://$D/sock" --pidfile "$D/pid" \
            --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --userland-proxy=false"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "sh", "-c", script]).env("D", &home);
        let socket = home.join("sock");
        Self::start("dockerd", command, docker, home, socket, archive)
    }

    fn start(
        name: &'static str,
        mut command: Command,
        docker: &Path,
        home: PathBuf,
        socket: PathBuf,
        archive: &Path,
    ) -> Result<Self, Failure> {
        let log = home.join("log");
        let file = File::create(&log)?;
        let daemon = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        let engine = Self { name, docker: docker.to_owned(), home, socket, daemon };
        let begun = Instant::now();
        while engine.says(&["version"]).is_err() {
            if begun.elapsed() > PATIENCE {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("{name} does not come up: {said}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        engine.says(&["load", "-i", &archive.to_string_lossy()])?;
        println!("{name}: {}", engine.says(&["version", "--format", "{{.Server.Version}}"])?);
        Ok(engine)
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// The docker client with these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.docker);
        command.arg("-H").arg(format!("unix://{}", self.socket.display())).args(words).stdin(Stdio::null());
        command.env("DOCKER_CONFIG", self.home.join("config"));
        command
    }

    /// What a client's command prints that must succeed.
    pub fn says(&self, words: &[&str]) -> Result<String, Failure> {
        let output = self.command(words).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: docker {words:?}: {}", self.name, said.trim()).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The same command in a race.
    pub fn contender(&self, words: &[&str]) -> Contender {
        // The command is made anew for each run, from what does not borrow.
        let (docker, socket, config) = (self.docker.clone(), self.socket.clone(), self.home.join("config"));
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Contender::new(self.name, move |_| {
            let mut command = Command::new(&docker);
            command.arg("-H").arg(format!("unix://{}", socket.display())).args(&words);
            command.env("DOCKER_CONFIG", &config);
            command
        })
    }

    /// Removes every container.
    pub fn remove_all(&self) -> Result<(), Failure> {
        let all = self.says(&["ps", "-aq"])?;
        let ids: Vec<&str> = all.lines().collect();
        for some in ids.chunks(50) {
            self.says(&[&["rm", "-f"], some].concat())?;
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.remove_all();
        let _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

/// podman with the default image's files as an overlaid root: it has no daemon, and no image needs to be given to it.
pub fn podman(program: &Path, place: &Path) -> Result<Contender, Failure> {
    let (program, storage) = (program.to_owned(), place.join("podman"));
    let mut root = rootfs(place)?.into_os_string();
    root.push(":O");
    Ok(Contender::new("podman run", move |_| {
        let mut command = Command::new(&program);
        command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
        command.args(["--cgroup-manager=cgroupfs", "run", "--rm", "--network", "none", "--cgroups=disabled"]);
        // Its defaults are more than a root without CAP_SYS_RESOURCE may set.
        command.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]);
        command.arg("--rootfs").arg(&root).arg("hello");
        command
    }))
}

/// The default image's files, unpacked.
fn rootfs(place: &Path) -> Result<PathBuf, Failure> {
    let store = Store::open(&place.join("images"))?;
    let image = store.resolve(embedded::NAME)?;
    Ok(store.layer_dirs(&image, &())?.into_iter().next().ok_or("the default image has a layer")?)
}

/// A bundle of the same for the runtime alone, with the specification's own default configuration.
pub fn bundle(place: &Path) -> Result<PathBuf, Failure> {
    let mut spec = serde_json::to_value(oci_spec::runtime::Spec::default())?;
    spec["root"] = serde_json::json!({ "path": rootfs(place)?, "readonly": true });
    spec["process"]["args"] = serde_json::json!(["/bin/hello"]);
    spec["process"]["terminal"] = false.into();
    let bundle = place.join("bundle");
    std::fs::create_dir(&bundle)?;
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
    Ok(bundle)
}
