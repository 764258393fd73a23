//! `$((…))`: whole numbers, + - * / %, parentheses, variables by name.

/// Evaluates an expression; `variable` gives a name's value. `None` if it is malformed, overflows or divides by zero.
pub fn evaluate<'v>(text: &[u8], variable: impl Fn(&[u8]) -> Option<&'v [u8]>) -> Option<i64> {
    let mut parser = Parser { rest: text, variable, depth: 0 };
    let value = parser.sum()?;
    parser.peek().is_none().then_some(value)
}

struct Parser<'t, F> {
    rest: &'t [u8],
    variable: F,
    depth: u8,
}

/// Parentheses and signs may nest so deep: the stack is small.
const DEPTH: u8 = 64;

impl<'t, 'v, F: Fn(&[u8]) -> Option<&'v [u8]>> Parser<'t, F> {
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    fn skip(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or(&[]);
    }

    fn sum(&mut self) -> Option<i64> {
        let mut value = self.product()?;
        while let Some(operator @ (b'+' | b'-')) = self.peek() {
            self.skip();
            let right = self.product()?;
            value = if operator == b'+' { value.checked_add(right) } else { value.checked_sub(right) }?;
        }
        Some(value)
    }

    fn product(&mut self) -> Option<i64> {
        let mut value = self.factor()?;
        while let Some(operator @ (b'*' | b'/' | b'%')) = self.peek() {
            self.skip();
            let right = self.factor()?;
            value = match operator {
                b'*' => value.checked_mul(right),
                b'/' => value.checked_div(right),
                _ => value.checked_rem(right),
            }?;
        }
        Some(value)
    }

    fn factor(&mut self) -> Option<i64> {
        self.depth = self.depth.checked_add(1).filter(|&depth| depth < DEPTH)?;
        let value = match self.peek()? {
            b'-' => {
                self.skip();
                self.factor()?.checked_neg()?
            }
            b'(' => {
                self.skip();
                let value = self.sum()?;
                (self.peek() == Some(b')')).then_some(())?;
                self.skip();
                value
            }
            b'0'..=b'9' => number(self.take(u8::is_ascii_digit))?,
            _ => {
                let name = self.take(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
                if name.is_empty() {
                    return None;
                }
                // An unset or empty variable counts as zero.
                match (self.variable)(name) {
                    None | Some(b"") => 0,
                    Some([b'-', digits @ ..]) => -number(digits)?,
                    Some(digits) => number(digits)?,
                }
            }
        };
        self.depth -= 1;
        Some(value)
    }

    fn take(&mut self, belongs: impl Fn(&u8) -> bool) -> &'t [u8] {
        let end = self.rest.iter().position(|byte| !belongs(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    freestanding::text::parse_number(digits).and_then(|number| i64::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<i64> {
        evaluate(text.as_bytes(), |name| (name == b"x").then_some(&b"5"[..]))
    }

    #[test]
    fn operators_bind_as_in_c() {
        assert_eq!(value("1 + 2 * 3"), Some(7));
        assert_eq!(value("(1+2)*3 - -4"), Some(13));
        assert_eq!(value("7/2%2"), Some(1));
        assert_eq!(value("x+unset"), Some(5));
    }

    #[test]
    fn nonsense_has_no_value() {
        let deep = "(".repeat(1000);
        for text in ["", "1+", "1 2", "(1", "1/0", "9223372036854775807+1", "$", &deep] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
