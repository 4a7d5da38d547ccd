//! Reads little-endian fields from untrusted bytes.

/// The bytes that are not read yet. Reading beyond the end is an error and consumes nothing.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, position: 0 }
    }

    /// Number of bytes that were read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let left = self.rest.len();
        let (taken, rest) =
            self.rest.split_at_checked(n).ok_or_else(|| format!("needs {n} bytes, {left} left"))?;
        self.rest = rest;
        self.position += n;
        Ok(taken)
    }

    /// Reads a line; returns it without the newline.
    pub(super) fn line(&mut self) -> Result<&'a [u8], String> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or("a line without end")?;
        let line = self.take(end)?;
        self.take(1)?;
        Ok(line)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }
}
