//! A class: packed, served, collected.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use common::{Lab, Wall, skip};

/// A server that ends with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

fn get(address: &str, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: class\r\n\r\n"))
}

#[test]
fn a_class_s_server_shows_the_book_and_only_the_book_and_keeps_results_for_the_token() {
    let lab = Lab::empty();
    let book = lab.home().join("book");
    fs::create_dir(&book).expect("a folder");
    fs::write(book.join("index.html"), "<h1>the book</h1>").expect("a page");
    fs::write(lab.home().join("secret.html"), "not for the class").expect("a file");
    std::os::unix::fs::symlink("../secret.html", book.join("link.html")).expect("a link");
    let arguments = ["classroom", "serve", "--listen", "127.0.0.1:0", "--book", "book", "--token", "t0ken"];
    let mut command = lab.command(&arguments);
    let mut server = Server(command.stdout(Stdio::piped()).spawn().expect("lab starts"));
    let mut line = String::new();
    let mut output = BufReader::new(server.0.stdout.take().expect("a pipe"));
    output.read_line(&mut line).expect("its first line");
    let address = line.split('/').nth(2).expect("an address").to_owned();

    assert!(get(&address, "/").contains("Location: /book/"));
    assert!(get(&address, "/book/").contains("<h1>the book</h1>"));
    for path in
        ["/book/../secret.html", "/book/%2e%2e/secret.html", "/book/link.html", "/book//etc/passwd", "/x"]
    {
        let reply = get(&address, path);
        assert!(reply.starts_with("HTTP/1.1 404"), "{path}: {reply}");
    }
    assert!(ask(&address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(ask(&address, "DELETE /results HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));

    // Results: none without the token, none that are no results, none under a name that is a path.
    let post = |query: &str, token: &str, body: &str| {
        let length = body.len();
        ask(
            &address,
            &format!(
                "POST /results?{query} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        )
    };
    let results = r#"[{"lesson":"pid-namespace","wall":"container","time":1,"seconds":0.2,"output":"","checks":[
        {"id":"compiles","passed":true,"text":"compiles"},
        {"id":"own-proc","passed":false,"text":"t","cause":"old-proc","hint":"<script>h</script>"}]}]"#;
    assert!(post("name=Eva", "wrong", results).starts_with("HTTP/1.1 403"));
    assert!(post("name=Eva", "t0ken", "[1]").starts_with("HTTP/1.1 400"));
    for name in ["", "..%2Fx", "a%2Fb", ".hidden", "%3Cb%3E"] {
        assert!(post(&format!("name={name}"), "t0ken", results).starts_with("HTTP/1.1 400"), "{name}");
    }
    assert!(post("name=Eva%20M", "t0ken", results).starts_with("HTTP/1.1 204"));
    assert!(lab.home().join("results/Eva M.json").is_file());
    assert!(get(&address, "/results").starts_with("HTTP/1.1 403"));
    let page = get(&address, "/results?token=t0ken");
    assert!(page.contains("Eva M") && page.contains("1/2") && page.contains("old-proc"), "{page}");
    let csv = get(&address, "/results.csv?token=t0ken");
    assert!(csv.contains("Eva M,pid-namespace,container,1,own-proc,false,old-proc,0,0"), "{csv}");

    // As a student's laptop sends them.
    let sent = lab.run(&["lesson", "send", &address, "--name", "Iñaki", "--token", "t0ken"], "");
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    assert!(get(&address, "/results?token=t0ken").contains("Iñaki"));
    let refused = lab.run(&["lesson", "send", &address, "--name", "Eva", "--token", "x"], "");
    assert!(refused.code != 0 && refused.stderr.contains("token"), "{}", refused.stderr);
}

#[test]
fn a_packed_class_runs_a_container_from_where_it_is_unpacked() {
    if let Some(why) = Wall::Container.missing() {
        return skip("a packed class", why);
    }
    let lab = Lab::empty();
    let book = lab.home().join("built");
    fs::create_dir(&book).expect("a folder");
    fs::write(book.join("index.html"), "the book").expect("a page");
    // Kernels are large, and packing them is no other than packing these.
    let cache = lab.home().join("cache");
    fs::create_dir_all(cache.join("lab/kernels")).expect("a folder");
    fs::write(cache.join("lab/kernels/one"), "a kernel").expect("a file");
    let mut pack = lab.command(&["classroom", "pack", "class.tar", "--book", "built"]);
    let packed = pack.env("XDG_CACHE_HOME", &cache).output().expect("lab runs");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));

    let laptop = lab.home().join("laptop");
    fs::create_dir(&laptop).expect("a folder");
    let script = "tar xf ../class.tar && . class/start > /dev/null && cat class/book/index.html && \
                  cat $XDG_CACHE_HOME/lab/kernels/one && command -v lab && lab run lab hello";
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).current_dir(&laptop).env("XDG_RUNTIME_DIR", lab.home().join("run"));
    let output = shell.output().expect("bash runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("the book") && text.contains("a kernel") && text.contains("hello, world"),
        "{text}"
    );
    assert!(text.contains("laptop/class/bin/lab"), "{text}");
}
