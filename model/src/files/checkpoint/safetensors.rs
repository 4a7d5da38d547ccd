//! The safetensors format: the length of the header, the header in JSON, the data of the tensors.
//!
//! The `safetensors` crate parses the header and checks that the tensors have no gaps or overlaps and that their lengths match types
//! and shapes. The frame around the header is read here, because the crate adds lengths without overflow checks and accepts headers
//! of 100 MB, for which its parser takes gigabytes. Repeated names and unsupported types are also rejected here.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use ::safetensors::tensor::{Dtype as Stored, Metadata};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::{Bytes, Contents, Dtype, Tensor};
use crate::error::{self, Error};
use crate::limits::checkpoint::{MAX_HEADER, MAX_METADATA, MAX_TENSORS};
use crate::memory::copy;

/// Reads the header and returns the tensors.
pub(super) fn read(path: &Arc<Path>, file: &Bytes) -> error::Result<Contents> {
    let (header, data) = split(file).map_err(|problem| Error::file(path, problem))?;
    // Copied, so that no other process can change it between check and use.
    let header = copy(header, path.display())?;
    let metadata = parse(&header, data.len()).map_err(|problem| Error::file(path, problem))?;
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let dtype = dtype(info.dtype).ok_or_else(|| {
            Error::tensor(path, &name, format!("type {} is not supported", info.dtype))
        })?;
        let range = info.data_offsets.0..info.data_offsets.1;
        tensors.push(Tensor::new(path, &name, dtype, info.shape.clone(), &data, range)?);
    }
    let metadata = metadata.metadata().iter().flatten();
    let metadata: BTreeMap<_, _> = metadata.map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Contents { tensors, metadata })
}

/// The length of the header, after the eight bytes that say it.
pub(super) fn header_len(file: &[u8]) -> Result<u64, String> {
    let Some((length, _)) = file.split_first_chunk::<8>() else {
        return Err(format!("is cut off: {} bytes are no safetensors file", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(format!("is no safetensors file: its header would have {length} bytes"));
    }
    Ok(length)
}

/// The header and the data after it.
fn split(file: &Bytes) -> Result<(&[u8], Bytes), String> {
    let length = header_len(file)?;
    let rest = file.get(8..).unwrap_or_default();
    let cut_off = || format!("is cut off: a header of {length} bytes in {} bytes", rest.len());
    let length = usize::try_from(length).map_err(|_| cut_off())?;
    let header = rest.get(..length).ok_or_else(cut_off)?;
    let data = file.slice(8 + length..file.len()).ok_or_else(cut_off)?;
    Ok((header, data))
}

fn parse(header: &[u8], data_len: usize) -> Result<Metadata, String> {
    let fail = |error: serde_json::Error| format!("header: {error}");
    check_names(header).map_err(fail)?;
    let metadata: Metadata = serde_json::from_slice(header).map_err(fail)?;
    let promised = metadata.data_len();
    if promised != data_len {
        return Err(format!("the header promises {promised} bytes of data, found {data_len}"));
    }
    Ok(metadata)
}

/// Rejects repeated names, and too many. JSON does not define which of two equal names counts, so two readers could see different
/// models.
fn check_names(header: &[u8]) -> serde_json::Result<()> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = ();

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of tensors")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let (mut names, mut tensors) = (HashSet::new(), 0);
            while let Some(name) = map.next_key::<String>()? {
                if names.contains(&name) {
                    return Err(A::Error::custom(format!("tensor {name} appears twice")));
                }
                if name == "__metadata__" {
                    map.next_value::<FewEntries>()?;
                } else {
                    map.next_value::<IgnoredAny>()?;
                    tensors += 1;
                }
                names.insert(name);
                if tensors > MAX_TENSORS {
                    return Err(A::Error::custom(format!("has more than {MAX_TENSORS} tensors")));
                }
            }
            Ok(())
        }
    }

    let mut json = serde_json::Deserializer::from_slice(header);
    json.deserialize_map(Names)?;
    json.end()
}

/// Metadata that are few enough, of which nothing is kept.
struct FewEntries;

impl<'de> Deserialize<'de> for FewEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = FewEntries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FewEntries, A::Error> {
                let mut count = 0;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                    if count > MAX_METADATA {
                        let problem = format!("__metadata__ has more than {MAX_METADATA} entries");
                        return Err(A::Error::custom(problem));
                    }
                }
                Ok(FewEntries)
            }

            // Some writers put nothing there.
            fn visit_unit<E>(self) -> Result<FewEntries, E> {
                Ok(FewEntries)
            }
        }

        deserializer.deserialize_any(Entries)
    }
}

fn dtype(stored: Stored) -> Option<Dtype> {
    Some(match stored {
        Stored::F32 => Dtype::F32,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::BF16,
        Stored::I8 => Dtype::I8,
        Stored::U8 => Dtype::U8,
        Stored::F64 => Dtype::F64,
        Stored::I64 => Dtype::I64,
        Stored::I32 => Dtype::I32,
        Stored::I16 => Dtype::I16,
        Stored::BOOL => Dtype::Bool,
        _ => return None,
    })
}
