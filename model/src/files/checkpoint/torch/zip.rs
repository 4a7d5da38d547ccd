//! Reads the zip archives that torch writes, and no others: uncompressed entries in one file.
//!
//! ```text
//! local header · name · extra · data      per entry
//! central header · name · extra           per entry: the directory
//! zip64 end · zip64 locator               in large files, and always from torch
//! end                                     22 bytes, the last of the file
//! ```
//!
//! zip stores most facts twice, and programs that trust different copies see different archives. Therefore the end record must be at
//! the end of the file, the directory must fill the space before it exactly, each local header must agree with the directory, and no
//! two entries may share a byte or a name. Checksums are not compared, because that would read all of a file that is to be mapped.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::files::cursor::Cursor;
use crate::limits::checkpoint::MAX_DIRECTORY;

const LOCAL: &[u8; 4] = b"PK\x03\x04";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const END: &[u8; 4] = b"PK\x05\x06";
const ZIP64_END: &[u8; 4] = b"PK\x06\x06";
const ZIP64_LOCATOR: &[u8; 4] = b"PK\x06\x07";

const END_LEN: usize = 22;
const ZIP64_END_LEN: usize = 56;
const ZIP64_LOCATOR_LEN: usize = 20;

/// Flags of three kinds of encryption.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// The sizes are not in the local header; they follow the data.
const SIZES_LATER: u16 = 1 << 3;

/// The data of the entries, by name.
#[derive(Debug)]
pub(super) struct Archive {
    /// The only folder, which has the original name of the file.
    folder: String,
    entries: BTreeMap<String, Range<usize>>,
}

impl Archive {
    /// The data of a file in the folder.
    pub(super) fn find(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(&format!("{}/{name}", self.folder)).cloned()
    }
}

/// Reads the directory and checks every entry against its local header.
pub(super) fn read(file: &[u8]) -> Result<Archive, String> {
    let directory = Directory::find(file)?;
    let entries = directory.entries(file)?;
    let mut places = Vec::with_capacity(entries.len());
    for entry in entries {
        let place = entry
            .place(file, directory.range.start)
            .map_err(|problem| format!("zip entry {:?}: {problem}", entry.name))?;
        places.push((place, entry.name));
    }
    let first = places.first().ok_or("is an empty zip file")?;
    let folder = first.1.split('/').next().unwrap_or_default().to_owned();
    Ok(Archive { folder, entries: apart(places)? })
}

/// The place of the directory in a file of which only the end needs to be there.
pub(super) fn directory(file: &[u8]) -> Result<Range<u64>, String> {
    let Range { start, end } = Directory::find(file)?.range;
    match end - start {
        0..=MAX_DIRECTORY => Ok(start as u64..end as u64),
        long => Err(format!("the zip directory has {long} bytes")),
    }
}

/// An entry as far as the directory tells.
pub(super) struct Outline {
    pub(super) name: String,
    /// From its local header to the next, or to the directory.
    pub(super) range: Range<u64>,
    /// A local header that agrees with the directory.
    pub(super) local_header: Vec<u8>,
}

/// The entries of a file of which only the directory needs to be there, in the order of their places.
pub(super) fn entries(file: &[u8]) -> Result<Vec<Outline>, String> {
    let directory = Directory::find(file)?;
    let mut entries = directory.entries(file)?;
    entries.sort_by_key(|entry| entry.header);
    let starts = entries.iter().skip(1).map(|entry| entry.header);
    let ends: Vec<_> = starts.chain([directory.range.start as u64]).collect();
    let outline = |(entry, end): (Entry, u64)| {
        let local_header = entry.local_header();
        let needed = entry.size.checked_add(local_header.len() as u64);
        let fits = end.checked_sub(entry.header).is_some_and(|space| needed <= Some(space));
        if needed.is_none() || !fits {
            return Err(format!("zip entry {:?} overlaps another", entry.name));
        }
        Ok(Outline { range: entry.header..end, name: entry.name, local_header })
    };
    entries.into_iter().zip(ends).map(outline).collect()
}

/// An entry's bytes, from its local header to the end of its data.
struct Place {
    header: usize,
    data: Range<usize>,
}

fn apart(mut places: Vec<(Place, String)>) -> Result<BTreeMap<String, Range<usize>>, String> {
    places.sort_by_key(|(place, _)| (place.header, place.data.end));
    let mut entries = BTreeMap::new();
    let mut end = 0;
    for (place, name) in places {
        if place.header < end {
            return Err(format!("zip entry {name:?} overlaps another"));
        }
        end = place.data.end;
        if entries.contains_key(&name) {
            return Err(format!("zip entry {name:?} appears twice"));
        }
        entries.insert(name, place.data);
    }
    Ok(entries)
}

struct Directory {
    range: Range<usize>,
    count: u64,
}

impl Directory {
    fn find(file: &[u8]) -> Result<Self, String> {
        let Some(end) = file.len().checked_sub(END_LEN).filter(|&at| file[at..].starts_with(END))
        else {
            return Err(if file.starts_with(LOCAL) {
                "is cut off: a zip file without its end".into()
            } else {
                "is not a file that torch.save wrote".into()
            });
        };
        match end.checked_sub(ZIP64_LOCATOR_LEN) {
            Some(at) if file[at..].starts_with(ZIP64_LOCATOR) => Self::from_zip64(file, at, end),
            _ => Self::from_end(file, end),
        }
    }

    fn from_end(file: &[u8], end: usize) -> Result<Self, String> {
        let [count, len, start] = end_fields(file, end)?;
        Self::checked(count, start, len, end)
    }

    fn from_zip64(file: &[u8], locator: usize, end: usize) -> Result<Self, String> {
        let at = locator.checked_sub(ZIP64_END_LEN).ok_or("a zip64 end that is not there")?;
        let mut fields = Cursor::new(&file[locator + 4..end]);
        let (disk, said, disks) = (fields.u32()?, fields.u64()?, fields.u32()?);
        let mut fields = Cursor::new(&file[at..locator]);
        let signed = fields.take(4)? == ZIP64_END;
        let len = fields.u64()?;
        if !signed || said != at as u64 || len != ZIP64_END_LEN as u64 - 12 {
            return Err("the zip64 end is not where its locator says".into());
        }
        fields.take(4)?; // Versions of the writer and of zip.
        let (this_disk, first_disk) = (fields.u32()?, fields.u32()?);
        let (here, count, len, start) =
            (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
        if (disk, this_disk, first_disk) != (0, 0, 0) || disks > 1 || here != count {
            return Err("is one part of a zip archive in several".into());
        }
        for ((short, limit), long) in
            end_fields(file, end)?.into_iter().zip(LIMITS).zip([count, len, start])
        {
            if short != long && short != limit {
                return Err("the zip end and the zip64 end disagree".into());
            }
        }
        Self::checked(count, start, len, at)
    }

    fn checked(count: u64, start: u64, len: u64, end: usize) -> Result<Self, String> {
        if start.checked_add(len) != Some(end as u64) {
            return Err("the zip directory does not lie before the end of the file".into());
        }
        let start = usize::try_from(start).map_err(|_| "the zip directory is too far away")?;
        Ok(Self { range: start..end, count })
    }

    fn entries(&self, file: &[u8]) -> Result<Vec<Entry>, String> {
        let mut cursor = Cursor::new(file.get(self.range.clone()).ok_or("no zip directory")?);
        let mut entries = Vec::new();
        while !cursor.is_empty() {
            let entry = Entry::read(&mut cursor);
            entries.push(entry.map_err(|problem| format!("zip directory: {problem}"))?);
        }
        if entries.len() as u64 != self.count {
            let count = self.count;
            return Err(format!("the zip directory has {} entries, not {count}", entries.len()));
        }
        Ok(entries)
    }
}

/// The value of a field in the short end record if its actual value is in the zip64 one.
const LIMITS: [u64; 3] = [u16::MAX as u64, u32::MAX as u64, u32::MAX as u64];

/// The number of entries, and the directory's length and start.
fn end_fields(file: &[u8], end: usize) -> Result<[u64; 3], String> {
    let mut fields = Cursor::new(&file[end + 4..]);
    let (disk, first_disk) = (fields.u16()?, fields.u16()?);
    let (here, count) = (fields.u16()?, fields.u16()?);
    let (len, start, comment) = (fields.u32()?, fields.u32()?, fields.u16()?);
    if (disk, first_disk) != (0, 0) || here != count {
        return Err("is one part of a zip archive in several".into());
    }
    if comment != 0 {
        return Err("is a zip file with a comment".into());
    }
    Ok([count.into(), len.into(), start.into()])
}

/// An entry as the directory describes it.
struct Entry {
    name: String,
    size: u64,
    header: u64,
}

impl Entry {
    fn read(cursor: &mut Cursor) -> Result<Self, String> {
        if cursor.take(4)? != CENTRAL {
            return Err(format!("no entry at byte {}", cursor.position() - 4));
        }
        cursor.take(4)?; // Versions of the writer and of zip.
        let (flags, method) = (cursor.u16()?, cursor.u16()?);
        cursor.take(8)?; // Time, date, check sum.
        let (packed, size) = (cursor.u32()?, cursor.u32()?);
        let (name_len, extra_len, comment_len) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
        let disk = cursor.u16()?;
        cursor.take(6)?; // Attributes.
        let header = cursor.u32()?;
        let name = cursor.take(name_len.into())?;
        // Copied, so that no other process can change it between check and use.
        let name = String::from_utf8(name.to_vec()).map_err(|_| "a name that is not UTF-8")?;
        let mut zip64 = zip64_extra(cursor.take(extra_len.into())?)?;
        cursor.take(comment_len.into())?;
        check_stored(flags, method).map_err(|problem| format!("{name:?} {problem}"))?;
        let size = widen(size, &mut zip64)?;
        let packed = widen(packed, &mut zip64)?;
        let header = widen(header, &mut zip64)?;
        if packed != size || disk != 0 {
            return Err(format!("{name:?} has {packed} bytes for {size}, on disk {disk}"));
        }
        Ok(Self { name, size, header })
    }

    /// A local header without extra fields.
    fn local_header(&self) -> Vec<u8> {
        let mut header = LOCAL.to_vec();
        header.resize(30, 0);
        let size = u32::try_from(self.size).unwrap_or(u32::MAX).to_le_bytes();
        header[18..22].copy_from_slice(&size);
        header[22..26].copy_from_slice(&size);
        header[26..28].copy_from_slice(&(self.name.len() as u16).to_le_bytes());
        header.extend(self.name.as_bytes());
        header
    }

    /// Reads the local header and finds the data after it, all before `limit`.
    fn place(&self, file: &[u8], limit: usize) -> Result<Place, String> {
        let header = usize::try_from(self.header).ok().filter(|&header| header <= limit);
        let header = header.ok_or_else(|| format!("begins at byte {}, outside", self.header))?;
        let mut cursor = Cursor::new(file.get(header..limit).unwrap_or_default());
        if cursor.take(4)? != LOCAL {
            return Err(format!("no local header at byte {header}"));
        }
        cursor.take(2)?; // Version of zip.
        let (flags, method) = (cursor.u16()?, cursor.u16()?);
        check_stored(flags, method)?;
        cursor.take(8)?; // Time, date, check sum.
        let sizes = [cursor.u32()?, cursor.u32()?];
        let (name_len, extra_len) = (cursor.u16()?, cursor.u16()?);
        if cursor.take(name_len.into())? != self.name.as_bytes() {
            return Err("the local header has another name".into());
        }
        if sizes.iter().any(|&size| !self.agrees(size, flags)) {
            return Err(format!("the local header says {sizes:?} bytes, not {}", self.size));
        }
        cursor.take(extra_len.into())?;
        let start = header + cursor.position();
        let size = usize::try_from(self.size).map_err(|_| "is larger than any memory")?;
        cursor.take(size)?;
        Ok(Place { header, data: start..start + size })
    }

    /// Whether a size in the local header is that of the directory, or refers to another field.
    fn agrees(&self, local: u32, flags: u16) -> bool {
        u64::from(local) == self.size
            || local == u32::MAX
            || (local == 0 && flags & SIZES_LATER != 0)
    }
}

fn check_stored(flags: u16, method: u16) -> Result<(), String> {
    if flags & ENCRYPTED != 0 {
        return Err("is encrypted".into());
    }
    match method {
        0 => Ok(()),
        _ => Err(format!("is compressed by method {method}, which torch never does")),
    }
}

/// The values that do not fit into a header, or no bytes.
fn zip64_extra(extra: &[u8]) -> Result<Cursor<'_>, String> {
    let mut cursor = Cursor::new(extra);
    while !cursor.is_empty() {
        let (id, len) = (cursor.u16()?, cursor.u16()?);
        let field = cursor.take(len.into())?;
        if id == 1 {
            return Ok(Cursor::new(field));
        }
    }
    Ok(cursor)
}

fn widen(field: u32, zip64: &mut Cursor) -> Result<u64, String> {
    match field {
        u32::MAX => zip64.u64(),
        _ => Ok(field.into()),
    }
}
