//! Models that are known, and why they are not supported.

use std::fmt;

use super::Fields;

/// A kind of model that no reader reads.
pub(super) struct Refused {
    /// Its `model_type`.
    model_type: &'static str,
    /// What GGUF files of it may have as `general.architecture`.
    gguf: &'static [&'static str],
    /// The models of the kind, for people.
    models: &'static str,
    /// What this program does not have.
    reason: &'static str,
}

const REFUSED: [Refused; 5] = [
    Refused {
        model_type: "glm_moe_dsa",
        gguf: &["glm-dsa"],
        models: "GLM-5, GLM-5.1, GLM-5.2, GLM-5.3",
        reason: "it has sparse attention (DSA), where an indexer chooses the keys of every query",
    },
    Refused {
        model_type: "glm5_next",
        gguf: &["glm5next", "glm5-next"],
        models: "GLM-5.3-Flash",
        reason: "it has delta attention, sparse attention (DSA) and hyper-connections",
    },
    Refused {
        model_type: "glm_ocr",
        gguf: &[],
        models: "GLM-OCR",
        reason: "it reads the text in images, and images are not supported",
    },
    Refused {
        model_type: "glm_image",
        gguf: &[],
        models: "GLM-Image",
        reason: "it makes images, and only text is supported",
    },
    Refused {
        model_type: "glmasr",
        gguf: &[],
        models: "GLM-ASR",
        reason: "it writes down speech, and audio is not supported",
    },
];

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model_type, models, reason, .. } = self;
        write!(f, "model_type {model_type} ({models}) is not supported: {reason}")
    }
}

impl Refused {
    /// The models, and why they are not supported.
    pub(super) fn of_gguf(&self) -> String {
        format!("({}), which is not supported: {}", self.models, self.reason)
    }
}

/// What is known of the `model_type` of a file. A text part of such a model is not supported either.
pub(super) fn of_model_type(fields: &Fields) -> Option<&'static Refused> {
    let found = fields.text("model_type")?;
    let found = found.strip_suffix("_text").unwrap_or(found);
    REFUSED.iter().find(|refused| refused.model_type == found)
}

/// What is known of the architecture of a GGUF file.
pub(super) fn of_architecture(found: &str) -> Option<&'static Refused> {
    REFUSED.iter().find(|refused| refused.gguf.contains(&found))
}

#[cfg(test)]
mod tests {
    use crate::files::config::Config;
    use crate::files::model_dir::CONFIG;

    fn error(config: &str) -> String {
        Config::from_files(&[(CONFIG, config.as_bytes())]).unwrap_err().to_string()
    }

    #[test]
    fn known_models_are_refused_with_a_reason_and_what_is_supported() {
        for (model_type, models, reason) in [
            ("glm_moe_dsa", "GLM-5.2", "sparse attention (DSA), where an indexer"),
            ("glm5_next", "GLM-5.3-Flash", "delta attention, sparse attention (DSA) and hyper-"),
            ("glm_ocr", "GLM-OCR", "images are not supported"),
            ("glm_ocr_text", "GLM-OCR", "images are not supported"),
            ("glm_image", "GLM-Image", "only text is supported"),
            ("glmasr", "GLM-ASR", "audio is not supported"),
        ] {
            // Fields that such a file has do not matter.
            let found = error(&format!(
                r#"{{"model_type": "{model_type}", "architectures": ["X"], "num_hidden_layers": 2, "index_topk": 2048}}"#
            ));
            assert!(found.starts_with("config.json: model_type "), "{found}");
            for part in
                [models, reason, "is not supported: it ", "; supported: ChatGLM-6B", "GLM-4-0414"]
            {
                assert!(found.contains(part), "{found} has no {part}");
            }
            assert_eq!(found.lines().count(), 1);
        }
    }

    #[test]
    fn files_of_other_models_are_refused_as_before() {
        let found = error(r#"{"model_type": "glm_moe", "architectures": ["X"]}"#);
        assert!(
            found.contains(r#"model_type "glm_moe" with architectures ["X"] is not"#),
            "{found}"
        );
    }

    #[test]
    fn gguf_files_of_known_models_are_refused_with_the_same_reason() {
        for (architecture, models, reason) in [
            ("glm-dsa", "GLM-5.1", "an indexer chooses the keys"),
            ("glm5next", "GLM-5.3-Flash", "hyper-connections"),
            ("glm5-next", "GLM-5.3-Flash", "hyper-connections"),
        ] {
            let found = error(&format!(r#"{{"general.architecture": "{architecture}"}}"#));
            for part in [architecture, models, reason, "only chatglm (ChatGLM3-6B"] {
                assert!(found.contains(part), "{found} has no {part}");
            }
        }
    }
}
