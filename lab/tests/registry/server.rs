//! A registry to test with, and a proxy before it that counts, breaks and falsifies.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lab::image::Digest;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::skip;

const PROGRAM: &str = "docker-registry";

/// `eva` with the password `secret`, as `htpasswd -B` writes it.
const ACCOUNTS: &str = "eva:$2y$05$UT4E4uJIvnwB6x61LCBb.OT/9BIlRE6yIZZpzBwKrmDO1VJKnUKEq\n";

/// A running registry; gone with its content when dropped.
pub struct Registry {
    folder: TempDir,
    process: Child,
    pub address: SocketAddr,
    with_accounts: bool,
}

impl Registry {
    /// Starts one; says why not where it cannot be tried here.
    pub fn start(what: &str) -> Option<Self> {
        Self::begin(what, false)
    }

    /// One that only `eva` may use.
    pub fn with_accounts(what: &str) -> Option<Self> {
        Self::begin(what, true)
    }

    fn begin(what: &str, with_accounts: bool) -> Option<Self> {
        if Command::new(PROGRAM).arg("--version").output().is_err() {
            skip(what, "no docker-registry: install the package of this name");
            return None;
        }
        let folder = tempfile::tempdir().expect("a directory");
        let (process, address) = spawn(folder.path(), "127.0.0.1:0", with_accounts);
        Some(Self { folder, process, address, with_accounts })
    }

    /// Kills it, as a machine that fails would.
    pub fn kill(&mut self) {
        self.process.kill().expect("a child of ours");
        self.process.wait().expect("a child of ours");
    }

    /// Starts it again at the same place.
    pub fn restart(&mut self) {
        (self.process, self.address) =
            spawn(self.folder.path(), &self.address.to_string(), self.with_accounts);
    }

    /// The name of a repository in it.
    pub fn name(&self, repository: &str) -> String {
        format!("localhost:{}/{repository}", self.address.port())
    }

    pub fn put_blob(&self, repository: &str, blob: &[u8]) {
        let (code, head, _) = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        assert_eq!(code, 202, "{head}");
        let location = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        let location = location.expect("a location");
        let path =
            location.split_once("://").map_or(&*location, |(_, rest)| &rest[rest.find('/').unwrap()..]);
        let path = format!("{path}&digest={}", Digest::of(blob));
        let (code, head, body) = self.ask("PUT", &path, "application/octet-stream", blob);
        assert_eq!(code, 201, "{head} {body}");
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, media: &str, manifest: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (code, head, body) = self.ask("PUT", &path, media, manifest);
        assert_eq!(code, 201, "{head} {body}");
    }

    /// Tells the tags of a repository.
    pub fn tags(&self, repository: &str) -> Value {
        let (_, _, body) = self.ask("GET", &format!("/v2/{repository}/tags/list"), "", b"");
        serde_json::from_str::<Value>(&body).expect("JSON")["tags"].clone()
    }

    fn ask(&self, method: &str, path: &str, media: &str, body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).expect("a connection");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .expect("a request");
        stream.write_all(body).expect("a body");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
        (code, head.to_owned(), body.to_owned())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(folder: &Path, address: &str, with_accounts: bool) -> (Child, SocketAddr) {
    let accounts = folder.join("accounts");
    std::fs::write(&accounts, ACCOUNTS).expect("a file");
    let auth = if with_accounts {
        format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", accounts.display())
    } else {
        String::new()
    };
    let config = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: '{address}'}}\n{auth}",
        folder.join("content").display()
    );
    std::fs::write(&config, text).expect("a file");
    let mut process = Command::new(PROGRAM)
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the registry starts");
    let mut log = BufReader::new(process.stderr.take().expect("a pipe"));
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(log.read_line(&mut line).expect("a line") > 0, "the registry ended");
        if let Some((_, rest)) = line.split_once("listening on ") {
            let end = rest.find(|char: char| !char.is_ascii_hexdigit() && !".:[]".contains(char));
            break rest[..end.unwrap_or(rest.len())].parse().expect("an address");
        }
    };
    // A log that nobody reads would stop it.
    thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    (process, address)
}

/// What a proxy does to what the registry sends.
#[derive(Default)]
pub struct Plan {
    /// Each connection in turn is cut after so many bytes.
    pub cuts: VecDeque<usize>,
    /// The first is replaced by the second wherever it occurs; both have the same length.
    pub falsify: Option<(Vec<u8>, Vec<u8>)>,
    /// Waited before each piece.
    pub delay: Duration,
    /// The heads of all requests.
    pub asked: Vec<String>,
    /// Bytes that the registry has sent.
    pub sent: usize,
}

/// A proxy before a registry.
pub struct Proxy {
    pub address: SocketAddr,
    pub plan: Arc<Mutex<Plan>>,
}

impl Proxy {
    pub fn before(registry: &Registry, plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, target) = (listener.local_addr().expect("an address"), registry.address);
        let plan = Arc::new(Mutex::new(plan));
        let shared = Arc::clone(&plan);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect(target) else { continue };
                let plan = Arc::clone(&shared);
                thread::spawn(move || connect(client, server, &plan));
            }
        });
        Self { address, plan }
    }

    pub fn name(&self, repository: &str) -> String {
        format!("localhost:{}/{repository}", self.address.port())
    }

    /// How many requests began like this, and have this in their head.
    pub fn count(&self, begin: &str, with: &str) -> usize {
        let plan = self.plan.lock().expect("a plan");
        plan.asked.iter().filter(|head| head.starts_with(begin) && head.contains(with)).count()
    }
}

fn connect(client: TcpStream, server: TcpStream, plan: &Arc<Mutex<Plan>>) {
    let cut = plan.lock().expect("a plan").cuts.pop_front();
    let (mut from_client, mut to_server) =
        (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let upward = Arc::clone(plan);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            if ["GET ", "HEAD ", "POST ", "PUT "].iter().any(|method| text.starts_with(method)) {
                upward.lock().expect("a plan").asked.push(text);
            }
            if to_server.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let mut left = cut.unwrap_or(usize::MAX);
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(read @ 1..) = from_server.read(&mut buffer) {
        let (falsify, delay) = {
            let mut plan = plan.lock().expect("a plan");
            plan.sent += read;
            (plan.falsify.clone(), plan.delay)
        };
        thread::sleep(delay);
        if let Some((from, to)) = falsify {
            let found: Vec<usize> = buffer[..read]
                .windows(from.len())
                .enumerate()
                .filter(|(_, at)| *at == from)
                .map(|(at, _)| at)
                .collect();
            for at in found {
                buffer[at..at + to.len()].copy_from_slice(&to);
            }
        }
        let read = read.min(left);
        left -= read;
        if to_client.write_all(&buffer[..read]).is_err() || left == 0 {
            break;
        }
    }
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = from_server.shutdown(Shutdown::Both);
}
