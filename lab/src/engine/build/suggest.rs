//! What somebody who made a slip most likely meant.

/// The nearest of the known words, if one is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let distance = |other: &str| distance(word.as_bytes(), other.to_ascii_lowercase().as_bytes());
    let (near, steps) =
        known.iter().map(|&other| (other, distance(other))).min_by_key(|(_, steps)| *steps)?;
    (steps <= 1 + word.len() / 4).then_some(near)
}

/// Letters to insert, delete, replace or swap with their neighbour (Damerau and Levenshtein, neighbours only).
fn distance(one: &[u8], two: &[u8]) -> usize {
    let mut rows = vec![vec![0; two.len() + 1]; one.len() + 1];
    for (at, row) in rows.iter_mut().enumerate() {
        row[0] = at;
    }
    rows[0] = (0..=two.len()).collect();
    for i in 1..=one.len() {
        for j in 1..=two.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != two[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == two[j - 2] && one[i - 2] == two[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[one.len()][two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["RUN", "COPY", "ENTRYPOINT", "HEALTHCHECK"];
        for (word, meant) in
            [("RNU", "RUN"), ("COPPY", "COPY"), ("entripoint", "ENTRYPOINT"), ("HEALTCHEK", "HEALTHCHECK")]
        {
            assert_eq!(nearest(word, &known), Some(meant), "{word}");
        }
        assert_eq!(nearest("DEPLOY", &known), None);
    }
}
