//! The server of a class: the book for all, results for whoever has the token.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::super::error::Context as _;
use super::super::report::{self, Format, Report};
use super::super::{Error, compile};
use super::http::{Request, answer};
use super::page::{self, Class};

/// Connections at a time: a class has thirty laptops, and a browser opens six.
const MOST: usize = 256;

/// The longest name of a student.
const NAME: usize = 60;

/// What a class's server has.
#[derive(Clone, Debug)]
pub struct Classroom {
    /// The built book; none shows the results only.
    pub book: Option<PathBuf>,
    /// Where results are kept, a file a student.
    pub results: PathBuf,
    /// Who has it may send and read results.
    pub token: String,
}

impl Classroom {
    /// Serves until the process ends.
    ///
    /// # Errors
    /// The listener's.
    pub fn serve(self, listener: &TcpListener) -> Result<(), Error> {
        let (room, busy) = (Arc::new(self), Arc::new(AtomicUsize::new(0)));
        for stream in listener.incoming() {
            let stream = stream.context("accept", "a connection")?;
            if busy.load(Ordering::Relaxed) >= MOST {
                continue; // closes it
            }
            busy.fetch_add(1, Ordering::Relaxed);
            let (room, busy) = (Arc::clone(&room), Arc::clone(&busy));
            thread::spawn(move || {
                // A client that goes away in the middle is nobody's trouble.
                let _ = room.attend(&stream);
                busy.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Ok(())
    }

    fn attend(&self, stream: &TcpStream) -> io::Result<()> {
        const TEXT: &str = "text/plain; charset=utf-8";
        let Ok(request) = Request::read(stream) else {
            return answer(stream, "400 Bad Request", TEXT, "", b"this is no request that a class sends\n");
        };
        let known = request.token.as_deref().or(request.word("token")) == Some(&self.token);
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => answer(stream, "302 Found", TEXT, "Location: /book/\r\n", b""),
            ("GET", "/results" | "/results.csv") | ("POST", "/results") if !known => {
                answer(stream, "403 Forbidden", TEXT, "", b"the class's token is missing or another one\n")
            }
            ("GET", "/results") => {
                let page = page::render(&self.class());
                answer(stream, "200 OK", "text/html; charset=utf-8", "", page.as_bytes())
            }
            ("GET", "/results.csv") => {
                let text = self.csv().unwrap_or_default();
                answer(stream, "200 OK", "text/csv; charset=utf-8", "", text.as_bytes())
            }
            ("POST", "/results") => match self.keep(&request) {
                Ok(()) => answer(stream, "204 No Content", TEXT, "", b""),
                Err(reason) => answer(stream, "400 Bad Request", TEXT, "", format!("{reason}\n").as_bytes()),
            },
            ("GET", path) => match path.strip_prefix("/book").and_then(|path| self.file(path)) {
                Some((kind, content)) => answer(stream, "200 OK", kind, "", &content),
                None => answer(stream, "404 Not Found", TEXT, "", b"no such page\n"),
            },
            _ => answer(stream, "405 Method Not Allowed", TEXT, "Allow: GET, POST\r\n", b""),
        }
    }

    /// A file of the book, and its type. Nothing outside of the book's folder, whatever the path says or a link leads to.
    fn file(&self, path: &str) -> Option<(&'static str, Vec<u8>)> {
        let book = self.book.as_ref()?.canonicalize().ok()?;
        let relative = Path::new(path.trim_start_matches('/'));
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return None;
        }
        let mut file = book.join(relative).canonicalize().ok()?;
        if file.is_dir() {
            file = file.join("index.html").canonicalize().ok()?;
        }
        if !file.starts_with(&book) {
            return None;
        }
        let kind = match file.extension()?.to_str()? {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css",
            "js" => "text/javascript",
            "svg" => "image/svg+xml",
            "png" => "image/png",
            "woff2" => "font/woff2",
            "json" => "application/json",
            _ => "application/octet-stream",
        };
        Some((kind, fs::read(file).ok()?))
    }

    fn keep(&self, request: &Request) -> Result<(), String> {
        let name = request.word("name").unwrap_or_default().trim();
        let good = |c: char| c.is_alphanumeric() || " -_.@".contains(c);
        if name.is_empty() || name.chars().count() > NAME || name.starts_with('.') || !name.chars().all(good)
        {
            return Err(format!("a name has 1 to {NAME} letters, digits, spaces, '-', '_', '.' and '@'"));
        }
        let reports: Vec<Report> = serde_json::from_slice(&request.body)
            .map_err(|error| format!("these are no results of `lab lesson export`: {error}"))?;
        let text = serde_json::to_vec_pretty(&reports).map_err(|error| error.to_string())?;
        let new = self.results.join(format!(".{name}.new"));
        let kept =
            fs::write(&new, text).and_then(|()| fs::rename(&new, self.results.join(format!("{name}.json"))));
        kept.map_err(|error| format!("cannot keep the results: {error}"))
    }

    /// All results that were sent; a file that is none of ours is left out.
    fn class(&self) -> Class {
        let files = fs::read_dir(&self.results).into_iter().flatten().flatten();
        files
            .filter_map(|file| {
                let name = file.file_name().into_string().ok()?.strip_suffix(".json")?.to_owned();
                let bytes = compile::read_at_most(&file.path(), 4 << 20).ok()?;
                Some((name, serde_json::from_slice(&bytes).ok()?))
            })
            .collect()
    }

    /// A line a check, the student first.
    fn csv(&self) -> Result<String, Error> {
        let mut text = String::new();
        for (name, reports) in self.class() {
            let lines = report::export(&reports, Format::Csv)?;
            let mut lines = lines.lines();
            let head = lines.next().unwrap_or_default();
            if text.is_empty() {
                text = format!("student,{head}\n");
            }
            for line in lines {
                text += &name;
                text.push(',');
                text += line;
                text.push('\n');
            }
        }
        Ok(text)
    }
}
