//! Reads little-endian fields from bytes that are not trusted: headers of GGUF files, and the archives and pickles of torch.

/// A position in bytes. Every length is compared with the rest before it is used. What is an error consumes nothing.
pub(crate) struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes that were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    fn rest(&self) -> &'b [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'b [u8], String> {
        let rest = self.rest();
        let taken = rest.get(..n).ok_or_else(|| {
            format!("is cut off: {n} bytes follow byte {}, found {}", self.at, rest.len())
        })?;
        self.at += n;
        Ok(taken)
    }

    /// Reads a line; returns it without the newline.
    pub(crate) fn line(&mut self) -> Result<&'b [u8], String> {
        let end = self.rest().iter().position(|&byte| byte == b'\n').ok_or("a line without end")?;
        let line = self.take(end)?;
        self.take(1)?;
        Ok(line)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things that take at least `least` bytes each, so that the rest can hold them.
    pub(crate) fn count(&mut self, least: usize, things: &str) -> Result<usize, String> {
        let (at, count) = (self.at, self.u64()?);
        let most = self.rest().len() / least.max(1);
        let fitting = usize::try_from(count).ok().filter(|count| *count <= most);
        fitting.ok_or_else(|| {
            format!(
                "claims {count} {things} at byte {at}, and the rest of the file can hold {most}"
            )
        })
    }

    /// A string: its length and its bytes.
    pub(crate) fn text(&mut self) -> Result<&'b str, String> {
        let (at, length) = (self.at, self.count(1, "bytes of a string")?);
        std::str::from_utf8(self.take(length)?)
            .map_err(|_| format!("has a string at byte {at} that is not UTF-8"))
    }

    /// The bytes that `read` passes over.
    pub(crate) fn consumed(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<&'b [u8], String> {
        let start = self.at;
        read(self)?;
        Ok(self.bytes.get(start..self.at).unwrap_or_default())
    }
}
