//! `packing_format` of AutoRound → the layout, and whether zero points are stored less one.
//!
//! | packing | layout | zero points |
//! |---|---|---|
//! | `auto_round:auto_gptq`, `auto_round:gptq`, `auto` | GPTQ | less one |
//! | `auto_round`, `auto_round:gptqmodel` | GPTQ | as they are |
//! | `auto_round:auto_awq`, `auto_round:awq` | AWQ | as they are |
//!
//! A kernel may follow, as in `auto_round:gptq:exllamav2`. It changes nothing, or is refused. Before version 0.5, the name
//! of the packing is in `backend`. Later, that field names what a program is to run with, and counts only where there is no
//! `packing_format`.
//!
//! Source: `export_to_autoround/export.py`, `inference/backend.py`, `inference/convert_model.py` and the `QuantLinear` of each packing,
//! of the versions from 0.3 to 0.14.

use serde_json::Value;

use super::super::Layout;
use super::{Packing, group, only, refusal};
use crate::error::Result;
use crate::files::fields::Fields;

/// The fields with the name of the packing; the first that is there counts.
const FORMATS: [&str; 2] = ["packing_format", "backend"];

/// Kernels that read what `auto_round` packs.
const OWN_KERNELS: [&str; 3] = ["exllamav2", "triton", "tritonv2"];

/// Kernels that read what `gptq` packs; others have their own order.
const GPTQ_KERNELS: [&str; 6] = ["cuda", "exllama", "exllamav1", "exllamav2", "triton", "tritonv2"];

/// Kernels that read what `awq` packs.
const AWQ_KERNELS: [&str; 1] = ["gemm"];

/// What is read where neither field is there, as AutoRound and vLLM do.
const DEFAULT: &str = "auto";

/// Reads the configuration of AutoRound.
///
/// # Errors
/// If its packing is not supported, or its files do not say how they were packed.
pub(super) fn read(fields: &Fields<'_>) -> Result<Packing> {
    only(fields, "bits", &["4", "8"])?;
    check_types(fields)?;
    let layers = fields.nested("extra_config");
    for layer in layers.names() {
        let layer = layers.nested(layer);
        if layer.get("bits").and_then(Value::as_u64).is_none_or(|bits| bits <= 8) {
            check_types(&layer)?;
        }
    }
    let field = FORMATS.into_iter().find(|name| fields.is_set(name));
    let format = field.map_or(DEFAULT, |name| fields.text(name).unwrap_or_default());
    let (layout, less_one) = packing(format).ok_or_else(|| {
        let name = field.unwrap_or(FORMATS[0]);
        refusal(fields, &format!("{name} {}", fields.shown(name)))
    })?;
    // Version 0.5 packed it as `auto_gptq` and read it as here.
    if let ("auto_round:gptqmodel", Some(version)) = (format, fields.text("autoround_version"))
        && (version == "0.5" || version.starts_with("0.5."))
    {
        let what = format!("packing_format {format:?} of autoround_version {version:?}");
        return Err(refusal(fields, &what));
    }
    Ok(Packing {
        layout,
        name: "AutoRound",
        less_one,
        symmetric: fields.flag("sym", false)?,
        reordered: false,
        group: group(fields),
    })
}

/// Checks that weights are integers, and that inputs are not quantized: such files have zero points less one in every packing.
fn check_types(fields: &Fields<'_>) -> Result<()> {
    only(fields, "data_type", &["int"])?;
    only(fields, "act_bits", &["16", "32"])
}

/// The layout of a packing, and whether zero points are less by one; `None` if the name is not known.
fn packing(name: &str) -> Option<(Layout, bool)> {
    let own = ["auto_round", "autoround", "auto-round"];
    let mut parts = name.split(':').peekable();
    let is_own = parts.next_if(|part| own.contains(part)).is_some();
    let (found, kernels) = match parts.next() {
        Some("auto") if !is_own => ((Layout::Gptq, true), &[][..]),
        Some("auto_gptq" | "gptq") => ((Layout::Gptq, true), &GPTQ_KERNELS[..]),
        Some("auto_awq" | "awq") => ((Layout::Awq, false), &AWQ_KERNELS[..]),
        Some("gptqmodel") if is_own => ((Layout::Gptq, false), &[][..]),
        None if is_own => ((Layout::Gptq, false), &[][..]),
        Some(kernel) if is_own && OWN_KERNELS.contains(&kernel) => ((Layout::Gptq, false), &[][..]),
        _ => return None,
    };
    let is_known = parts.next().is_none_or(|kernel| kernels.contains(&kernel));
    (is_known && parts.next().is_none()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_packing_has_its_zero_points() {
        let (less_one, as_is, awq) =
            ((Layout::Gptq, true), (Layout::Gptq, false), (Layout::Awq, false));
        for (names, expected) in [
            (
                &[
                    "auto",
                    "auto_round:auto_gptq",
                    "auto_round:gptq",
                    // Of `backend`, before version 0.5.
                    "auto_gptq",
                    "gptq:exllamav2",
                    "auto_gptq:exllamav2",
                    "auto_round:gptq:exllamav2",
                    "auto_round:auto_gptq:tritonv2",
                ][..],
                Some(less_one),
            ),
            (
                &[
                    "auto_round",
                    "auto_round:gptqmodel",
                    "auto_round:exllamav2",
                    "auto_round:tritonv2",
                    "autoround:exllamav2",
                ],
                Some(as_is),
            ),
            (
                &["auto_round:auto_awq", "auto_round:awq", "auto_round:awq:gemm", "auto_awq:gemm"],
                Some(awq),
            ),
            (
                &[
                    "",
                    "auto_round:",
                    "auto_round:auto",
                    "auto:gptq",
                    "gptqmodel:marlin",
                    "auto_round:marlin",
                    "auto_round:gptq:marlin",
                    "auto_round:cuda",
                    "auto_round:gptqmodel:exllamav2",
                    "auto_round:awq:gemv",
                    "auto_round:gptq:exllamav2:x",
                    "auto_round:fp8_static",
                    "auto_round:llm_compressor",
                    "mlx",
                ],
                None,
            ),
        ] {
            for name in names {
                assert_eq!(packing(name), expected, "{name}");
            }
        }
    }
}
