//! Measuring, told to the grader: what is expected, what was measured, what follows.

use std::time::Duration;

/// How many times longer you expect the second thing to take. To be said before anything is measured.
pub fn predict(times: f64) {
    println!("@predict {times}");
}

/// One measured duration of the thing with this name.
pub fn sample(name: &str, time: Duration) {
    println!("@sample {name} {}", time.as_nanos());
}

/// How many times longer it took, by your reckoning.
pub fn conclude(times: f64) {
    println!("@conclude {times}");
}
