//! What a file of weights says about its calibration.

use std::collections::BTreeMap;

use super::texts::Calibration;

/// The name of the method in files.
const METHOD: &str = "gptq-1";

const METHOD_KEY: &str = "glm.method";
const TOKENS_KEY: &str = "glm.calibration_tokens";
const DIGEST_KEY: &str = "glm.calibration_sha256";
const VERSION_KEY: &str = "glm.version";

/// How the weights of a model were calibrated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CalibrationInfo {
    /// The method, with its version.
    pub method: String,
    /// Tokens of the texts.
    pub tokens: usize,
    /// [`Calibration::digest`] of the texts.
    pub sha256: String,
}

impl CalibrationInfo {
    /// What the metadata of a file say, if it is calibrated.
    pub(crate) fn read(metadata: &BTreeMap<String, String>) -> Option<Self> {
        let of = |key: &str| metadata.get(key).cloned();
        let tokens = of(TOKENS_KEY)?.parse().ok()?;
        Some(Self { method: of(METHOD_KEY)?, tokens, sha256: of(DIGEST_KEY)? })
    }

    /// The metadata of a file that is calibrated with `calibration`.
    pub(crate) fn write(calibration: &Calibration) -> [(&'static str, String); 4] {
        [
            (METHOD_KEY, METHOD.to_owned()),
            (TOKENS_KEY, calibration.tokens().to_string()),
            (DIGEST_KEY, calibration.digest().to_owned()),
            (VERSION_KEY, env!("CARGO_PKG_VERSION").to_owned()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let calibration = Calibration::of_ids(vec![vec![1, 2, 3], vec![4]]).unwrap();
        let entries =
            CalibrationInfo::write(&calibration).map(|(key, value)| (key.to_owned(), value));
        let mut metadata = BTreeMap::from(entries);
        let info = CalibrationInfo::read(&metadata).unwrap();
        assert_eq!((info.tokens, info.sha256.as_str()), (4, calibration.digest()));
        metadata.insert(TOKENS_KEY.to_owned(), "many".to_owned());
        assert_eq!(CalibrationInfo::read(&metadata), None);
    }
}
