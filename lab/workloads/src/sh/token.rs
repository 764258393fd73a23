//! From text to tokens: POSIX shell command language, section 2.3, as far as this shell goes.

/// What is wrong with a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// It ends too early: a quote or a compound command is open.
    Incomplete,
    /// Something stands where it cannot.
    Unexpected,
}

/// How a file is redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `<`
    Read,
    /// `>`
    Write,
    /// `>>`
    Append,
    /// `<&` or `>&`: the word is another descriptor's number.
    Duplicate,
}

/// A token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A word, with its quotes.
    Word(&'a [u8]),
    /// A redirection of this descriptor; a word follows.
    Redirect(i32, How),
    /// `;` or the end of a line.
    Separator,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`
    Close,
    /// The end of the script.
    End,
}

/// Reads a script token by token; its place can be saved and set.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    text: &'a [u8],
    /// The place: an offset in the script.
    pub at: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning of a script.
    pub const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    /// The next token, without going past it.
    ///
    /// # Errors
    /// The script is malformed there.
    pub fn peek(&self) -> Result<Token<'a>, Syntax> {
        let mut copy = *self;
        copy.next()
    }

    /// The next token.
    ///
    /// # Errors
    /// The script is malformed there.
    pub fn next(&mut self) -> Result<Token<'a>, Syntax> {
        self.skip_blanks();
        let Some(first) = self.byte(0) else { return Ok(Token::End) };
        let (len, token) = match (first, self.byte(1)) {
            (b';' | b'\n', _) => (1, Token::Separator),
            (b'&', Some(b'&')) => (2, Token::And),
            (b'&' | b'`', _) => return Err(Syntax::Unexpected), // no background, no old-style substitution
            (b'|', Some(b'|')) => (2, Token::Or),
            (b'|', _) => (1, Token::Pipe),
            (b'(', _) => (1, Token::Open),
            (b')', _) => (1, Token::Close),
            (digit @ b'0'..=b'9', Some(b'<' | b'>')) => {
                let (len, token) = self.redirect(1, i32::from(digit - b'0'));
                (len + 1, token)
            }
            (b'<' | b'>', _) => self.redirect(0, i32::from(first == b'>')),
            _ => return self.word(),
        };
        self.at += len;
        Ok(token)
    }

    fn redirect(&self, ahead: usize, fd: i32) -> (usize, Token<'a>) {
        let (len, how) = match (self.byte(ahead), self.byte(ahead + 1)) {
            (_, Some(b'&')) => (2, How::Duplicate),
            (Some(b'>'), Some(b'>')) => (2, How::Append),
            (Some(b'>'), _) => (1, How::Write),
            _ => (1, How::Read),
        };
        (len, Token::Redirect(fd, how))
    }

    fn skip_blanks(&mut self) {
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b' ' | b'\t' | b'\r'), _) => self.at += 1,
                (Some(b'\\'), Some(b'\n')) => self.at += 2,
                (Some(b'#'), _) => {
                    while self.byte(0).is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn word(&mut self) -> Result<Token<'a>, Syntax> {
        let start = self.at;
        while let Some(byte) = self.byte(0) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'(' | b')' | b'<' | b'>' => break,
                b'`' => return Err(Syntax::Unexpected),
                _ => self.at += unit(self.text.get(self.at..).unwrap_or(&[]))?,
            }
        }
        Ok(Token::Word(self.text.get(start..self.at).unwrap_or(&[])))
    }
}

/// How long the first unit of a word is: a letter, an escaped letter, a quoted text, a substitution.
///
/// # Errors
/// It has no end.
pub fn unit(text: &[u8]) -> Result<usize, Syntax> {
    match text {
        [b'\\', _, ..] => Ok(2),
        [b'\\'] => Err(Syntax::Incomplete),
        [b'\'', rest @ ..] => {
            rest.iter().position(|&byte| byte == b'\'').map(|end| end + 2).ok_or(Syntax::Incomplete)
        }
        [b'"', ..] => until(text, 1, b'"'),
        [b'$', b'(', ..] => until(text, 2, b')'),
        [b'$', b'{', ..] => until(text, 2, b'}'),
        _ => Ok(1),
    }
}

/// The offset after the closing byte, past whatever units lie before it.
fn until(text: &[u8], mut at: usize, close: u8) -> Result<usize, Syntax> {
    loop {
        let rest = text.get(at..).unwrap_or(&[]);
        match *rest.first().ok_or(Syntax::Incomplete)? {
            byte if byte == close => return Ok(at + 1),
            b'(' if close == b')' => at += until(rest, 1, b')')?,
            b'\'' if close == b'"' => at += 1, // an apostrophe within double quotes quotes nothing
            _ => at += unit(rest)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token<'_>>, Syntax> {
        let mut reader = Reader::new(text.as_bytes());
        let mut tokens = Vec::new();
        loop {
            match reader.next()? {
                Token::End => return Ok(tokens),
                token => tokens.push(token),
            }
        }
    }

    #[test]
    fn operators_end_words() {
        let expected = [Token::Word(b"a"), Token::And, Token::Word(b"b"), Token::Pipe, Token::Word(b"c")];
        assert_eq!(tokens("a&&b|c").unwrap(), expected);
        assert_eq!(tokens("a || b").unwrap(), [Token::Word(b"a"), Token::Or, Token::Word(b"b")]);
    }

    #[test]
    fn quotes_and_substitutions_keep_a_word_together() {
        for word in [
            "'a b'",
            "\"a 'b\"",
            "a\\ b",
            "$(echo 'x)' (y))",
            "${X:-a b}",
            "$((1 + (2)))",
            "\"$(echo \")\")\"",
        ] {
            assert_eq!(tokens(word).unwrap(), [Token::Word(word.as_bytes())], "{word}");
        }
    }

    #[test]
    fn redirections_name_a_descriptor() {
        let expected = [
            Token::Redirect(2, How::Duplicate),
            Token::Word(b"1"),
            Token::Redirect(1, How::Append),
            Token::Word(b"f"),
        ];
        assert_eq!(tokens("2>&1 >>f").unwrap(), expected);
        assert_eq!(tokens("<f").unwrap(), [Token::Redirect(0, How::Read), Token::Word(b"f")]);
        assert_eq!(tokens("12>f").unwrap()[0], Token::Word(b"12"));
    }

    #[test]
    fn comments_and_continued_lines_are_passed_over() {
        let expected = [Token::Word(b"a"), Token::Word(b"b"), Token::Separator, Token::Word(b"c#d")];
        assert_eq!(tokens("a \\\n b # not this\nc#d").unwrap(), expected);
    }

    #[test]
    fn what_is_open_at_the_end_is_incomplete() {
        for text in ["'a", "\"a", "$(a", "${a", "a\\"] {
            assert_eq!(tokens(text), Err(Syntax::Incomplete), "{text}");
        }
        assert_eq!(tokens("a & b"), Err(Syntax::Unexpected));
        assert_eq!(tokens("`a`"), Err(Syntax::Unexpected));
    }
}
