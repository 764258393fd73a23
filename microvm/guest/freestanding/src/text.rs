//! Lines of text in a fixed buffer, without an allocator and without `core::fmt`.

use core::ffi::CStr;

/// Text of at most `N` bytes. What does not fit is cut off: it is for messages, and a cut message beats none.
#[derive(Clone, Copy, Debug)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Text<N> {
    /// An empty text.
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// Appends text, or anything that is bytes.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        append(&mut self.bytes, &mut self.len, text.as_ref());
        self
    }

    /// Appends a number in decimal.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.digits(number, 10, 1)
    }

    /// Appends a number in decimal, right-aligned in at least `width` columns.
    pub fn padded(&mut self, number: u64, width: usize) -> &mut Self {
        let mut digits = Text::<20>::new();
        digits.number(number);
        for _ in digits.len..width {
            self.text(b" ");
        }
        self.text(digits.bytes())
    }

    /// Appends a number in decimal, with zeros before it up to `width` digits.
    pub fn zeros(&mut self, number: u64, width: usize) -> &mut Self {
        self.digits(number, 10, width)
    }

    /// Appends a number in octal.
    pub fn octal(&mut self, number: u64) -> &mut Self {
        self.digits(number, 8, 1)
    }

    fn digits(&mut self, mut number: u64, base: u64, least: usize) -> &mut Self {
        let mut digits = [b'0'; 22]; // 2^64 has 22 octal digits
        let mut first = digits.len();
        for (i, digit) in digits.iter_mut().enumerate().rev() {
            if number == 0 && 22 - i > least {
                break;
            }
            *digit = b'0' + (number % base) as u8;
            number /= base;
            first = i;
        }
        self.text(digits.get(first..).unwrap_or(&[]))
    }

    /// What was written so far.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// The text with a NUL after it, for a system call. `None` if it was cut off, or holds a NUL.
    pub fn c_str(&mut self) -> Option<&CStr> {
        *self.bytes.get_mut(self.len)? = 0;
        CStr::from_bytes_with_nul(self.bytes.get(..=self.len)?).ok()
    }

    /// Empties the text.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

/// One function for texts of every size.
#[inline(never)]
fn append(bytes: &mut [u8], len: &mut usize, text: &[u8]) {
    let room = bytes.get_mut(*len..).unwrap_or(&mut []);
    let count = text.len().min(room.len());
    if let (Some(room), Some(text)) = (room.get_mut(..count), text.get(..count)) {
        room.copy_from_slice(text);
    }
    *len += count;
}

/// Reads a decimal number that fills the text.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut text = Text::<64>::new();
        text.number(0)
            .text(" ")
            .number(42)
            .text(" ")
            .number(u64::MAX)
            .text(" ")
            .padded(7, 3)
            .text(" ")
            .zeros(5, 3);
        assert_eq!(text.bytes(), b"0 42 18446744073709551615   7 005");
    }

    #[test]
    fn octal_is_for_file_modes() {
        assert_eq!(Text::<8>::new().octal(0o1755).bytes(), b"1755");
    }

    #[test]
    fn what_does_not_fit_is_cut_off() {
        let mut text = Text::<4>::new();
        text.text("hello").number(1);
        assert_eq!(text.bytes(), b"hell");
        assert_eq!(text.c_str(), None);
    }

    #[test]
    fn a_text_becomes_an_argument_of_a_system_call() {
        let mut text = Text::<8>::new();
        assert_eq!(text.text("/tmp").c_str(), Some(c"/tmp"));
        text.clear();
        assert_eq!(text.text("a\0b").c_str(), None);
    }

    #[test]
    fn only_decimal_digits_are_a_number() {
        assert_eq!(parse_number(b"1024"), Some(1024));
        for wrong in [&b""[..], b"-1", b"1k", b" 1", b"18446744073709551616"] {
            assert_eq!(parse_number(wrong), None);
        }
    }
}
