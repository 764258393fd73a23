//! The lessons' task: what a student's container runs. It waits for the grader's word on standard input, so that there is time
//! to look at it, and exits with the code that the word names. `orphans N` first leaves N processes without a parent. `then PROGRAM`
//! is no task: it waits for one byte and becomes the program.

use std::fs::File;
use std::io::{BufRead, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::thread::sleep;
use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let own = "/bin/task";
    match words[..] {
        ["orphans", count] => {
            for _ in 0..count.parse().unwrap_or(3) {
                // The child ends at once; its own child loses its parent and goes to process 1.
                let _ = Command::new(own).arg("leave").status();
            }
        }
        ["leave"] => {
            let _ = Command::new(own).arg("nap").spawn();
            exit(0);
        }
        ["nap"] => {
            sleep(Duration::from_millis(60));
            exit(0);
        }
        ["nothing"] => exit(0),
        ["then", program] => {
            // Past the buffer of `stdin()`, which would take what is meant for the program.
            let input = std::io::stdin().as_fd().try_clone_to_owned().map(File::from);
            let _ = input.and_then(|mut input| input.read_exact(&mut [0]));
            eprintln!("{program}: {}", Command::new(program).exec());
            exit(127);
        }
        _ => {}
    }
    let mut word = String::new();
    loop {
        word.clear();
        let _ = std::io::stdin().lock().read_line(&mut word);
        let Some(count) = word.strip_prefix("fork ") else { break };
        for _ in 0..count.trim().parse().unwrap_or(0) {
            let _ = Command::new(own).arg("nap").spawn();
        }
        println!("@forked");
    }
    exit(word.strip_prefix("exit ").and_then(|code| code.trim().parse().ok()).unwrap_or(99));
}
