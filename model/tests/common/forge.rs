//! Writes small checkpoint files, valid and malformed.

/// A safetensors file; the length field is that of `header` unless given.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A file in a zip archive, with all fields of its headers.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub data: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub local_name: String,
    pub local_size: u32,
    /// Sizes in the directory: compressed and uncompressed.
    pub sizes: [u32; 2],
    /// Offset in the directory; `None` for the real offset of the local header.
    pub header: Option<u32>,
    pub extra: Vec<u8>,
}

impl Entry {
    pub fn new(name: &str, data: &[u8]) -> Self {
        let size = data.len() as u32;
        Self {
            name: name.into(),
            data: data.into(),
            method: 0,
            flags: 0,
            local_name: name.into(),
            local_size: size,
            sizes: [size; 2],
            header: None,
            extra: Vec::new(),
        }
    }

    /// Fields that the reader skips are 0: versions, times, checksums, attributes.
    fn local(&self) -> Vec<u8> {
        let mut out = b"PK\x03\x04\0\0".to_vec();
        put16(&mut out, [self.flags, self.method]);
        out.extend([0; 8]);
        put32(&mut out, [self.local_size; 2]);
        put16(&mut out, [self.local_name.len() as u16, 0]);
        out.extend(self.local_name.as_bytes());
        out.extend(&self.data);
        out
    }

    fn central(&self, header: u32) -> Vec<u8> {
        let mut out = b"PK\x01\x02\0\0\0\0".to_vec();
        put16(&mut out, [self.flags, self.method]);
        out.extend([0; 8]);
        put32(&mut out, self.sizes);
        put16(&mut out, [self.name.len() as u16, self.extra.len() as u16, 0, 0]);
        out.extend([0; 6]);
        put32(&mut out, [self.header.unwrap_or(header)]);
        out.extend(self.name.as_bytes());
        out.extend(&self.extra);
        out
    }
}

fn put16<const N: usize>(out: &mut Vec<u8>, values: [u16; N]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn put32<const N: usize>(out: &mut Vec<u8>, values: [u32; N]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

/// A zip archive without zip64.
pub fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        directory.extend(entry.central(file.len() as u32));
        file.extend(entry.local());
    }
    let (start, len, count) = (file.len() as u32, directory.len() as u32, entries.len() as u16);
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    put16(&mut file, [count, count]);
    put32(&mut file, [len, start]);
    put16(&mut file, [0]);
    file
}

/// The archive with an additional zip64 end record, as torch writes it.
pub fn zip64(entries: &[Entry]) -> Vec<u8> {
    let mut file = zip(entries);
    let end = file.split_off(file.len() - 22);
    let at = file.len() as u64;
    let short = |i: usize| u64::from(u32::from_le_bytes(end[i..i + 4].try_into().unwrap()));
    file.extend(b"PK\x06\x06");
    file.extend(u64::to_le_bytes(44));
    file.extend([0; 12]);
    let count = entries.len() as u64;
    for value in [count, count, short(12), short(16)] {
        file.extend(value.to_le_bytes());
    }
    file.extend(b"PK\x06\x07\0\0\0\0");
    file.extend(at.to_le_bytes());
    put32(&mut file, [1]);
    file.extend(end);
    file
}

/// An archive in the order of torch: the pickle, then the storages.
pub fn torch_entries(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<Entry> {
    let mut entries = vec![Entry::new("m/data.pkl", pickle), Entry::new("m/byteorder", b"little")];
    entries.extend(storages.iter().map(|(k, data)| Entry::new(&format!("m/data/{k}"), data)));
    entries
}

pub fn torch(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    zip(&torch_entries(pickle, storages))
}

/// A pickle around some opcodes.
pub fn pickle(opcodes: &[&[u8]]) -> Vec<u8> {
    [b"\x80\x02", &opcodes.concat()[..], b"."].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

pub fn int(value: i64) -> Vec<u8> {
    [b"\x8a\x08", &value.to_le_bytes()[..]].concat()
}

pub fn ints(values: &[i64]) -> Vec<u8> {
    [b"(", &values.iter().flat_map(|&value| int(value)).collect::<Vec<_>>()[..], b"t"].concat()
}

/// Opcodes of a tensor.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    pub storage: &'a str,
    pub key: &'a str,
    pub numel: i64,
    pub offset: i64,
    pub shape: &'a [i64],
    pub strides: &'a [i64],
}

impl Tensor<'_> {
    pub fn opcodes(&self) -> Vec<u8> {
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            &text("storage")[..],
            format!("ctorch\n{}\n", self.storage).as_bytes(),
            &text(self.key),
            &text("cpu"),
            &int(self.numel),
            b"tQ",
            &int(self.offset),
            &ints(self.shape),
            &ints(self.strides),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
        .concat()
    }
}

/// A dictionary of tensors.
pub fn dict(tensors: &[(&str, Tensor)]) -> Vec<u8> {
    let items = tensors.iter().flat_map(|(name, tensor)| [text(name), tensor.opcodes()]);
    [b"ccollections\nOrderedDict\n)R(", &items.flatten().collect::<Vec<_>>()[..], b"u"].concat()
}
