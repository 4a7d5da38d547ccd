//! Models with the same kinds of files.
//!
//! ChatGLM2 and ChatGLM3 have the same tensors and the same `tokenizer.model`. What differs is the form of a prompt, and the meaning of
//! `rope_ratio`. [`Identity::of`] decides between them, by the first of these that tells:
//!
//! ```text
//! 1. the caller                   ModelPath::of_variant
//! 2. evidence in the files        the roles of ChatGLM3 among the added tokens, the template, the published code (evidence.rs)
//! 3. a name                       of the repository, the folder, a link to it, a folder around it (names.rs)
//! 4. published sizes              rope_ratio; with less certainty seq_length
//! ```

mod evidence;
mod names;

use serde_json::Value;

use crate::error::Result;
use crate::files::model_dir::{CONFIG, ModelDir, TOKENIZER_MODEL};

/// Which of two models with the same files it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// ChatGLM2-6B or CodeGeeX2-6B: a prompt has numbered rounds, and `rope_ratio` divides the positions.
    ChatGlm2,
    /// ChatGLM3-6B: a prompt has roles, and `rope_ratio` multiplies the base of the frequencies.
    ChatGlm3,
}

impl Variant {
    /// The names that [`Variant::named`] knows.
    pub const NAMES: [&str; 2] = ["chatglm2", "chatglm3"];

    /// The variant with this name, one of [`Variant::NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        [Self::ChatGlm2, Self::ChatGlm3].into_iter().find(|variant| variant.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatGlm2 => Self::NAMES[0],
            Self::ChatGlm3 => Self::NAMES[1],
        }
    }

    /// The name under which it was published.
    pub(crate) fn repository(self) -> &'static str {
        match self {
            Self::ChatGlm2 => "THUDM/chatglm2-6b",
            Self::ChatGlm3 => "THUDM/chatglm3-6b",
        }
    }
}

/// A model that is known by its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// A name that contains this, in lower case, is one of the model.
    part: &'static str,
    /// The name for people.
    pub(crate) name: &'static str,
    variant: Option<Variant>,
}

const KNOWN: [Known; 17] = {
    const fn known(part: &'static str, name: &'static str, variant: Option<Variant>) -> Known {
        Known { part, name, variant }
    }
    const SECOND: Option<Variant> = Some(Variant::ChatGlm2);
    const THIRD: Option<Variant> = Some(Variant::ChatGlm3);
    [
        known("codegeex2", "CodeGeeX2-6B", SECOND),
        known("chatglm2", "ChatGLM2-6B", SECOND),
        known("chatglm3", "ChatGLM3-6B", THIRD),
        known("glm-3", "ChatGLM3-6B", THIRD),
        known("codegeex4", "CodeGeeX4-9B", None),
        known("glm-edge", "GLM-Edge", None),
        known("glm-z1", "GLM-Z1", None),
        known("glm-4.1v", "GLM-4.1V", None),
        known("glm-4.6v", "GLM-4.6V", None),
        known("glm-4.5v", "GLM-4.5V", None),
        known("glm-4.7-flash", "GLM-4.7-Flash", None),
        known("glm-4.7", "GLM-4.7", None),
        known("glm-4.6", "GLM-4.6", None),
        known("glm-4.5-air", "GLM-4.5-Air", None),
        known("glm-4.5", "GLM-4.5", None),
        known("glm4", "GLM-4", None),
        known("glm-4", "GLM-4", None),
    ]
};

impl Known {
    /// The model in a folder, by the first of its names that tells.
    ///
    /// # Errors
    /// As [`ModelDir::json`].
    pub(crate) fn of(folder: &ModelDir) -> Result<Option<&'static Self>> {
        Ok(names::all(folder)?.iter().find_map(|name| Self::named(name)))
    }

    /// Whether it is ChatGLM2 or ChatGLM3, or a model made from them.
    pub(crate) fn is_chatglm(&self) -> bool {
        self.variant.is_some()
    }

    /// The model that a name, in lower case, belongs to.
    fn named(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| name.contains(known.part))
    }
}

/// What is known of a model whose files may be those of ChatGLM2 or ChatGLM3.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The name for people, if it is known.
    pub(crate) name: Option<&'static str>,
    /// `None` if it is a later model, with the same `config.json`.
    pub(crate) variant: Option<Variant>,
    /// Whether nothing but a default, or a size that several models have, decided.
    pub(crate) is_assumed: bool,
}

impl Identity {
    /// Decides. See the module.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(crate) fn of(folder: &ModelDir) -> Result<Self> {
        let known = Known::of(folder)?;
        if evidence::is_later(folder)? {
            let known = known.filter(|known| known.variant.is_none());
            return Ok(Self {
                name: known.map(|known| known.name),
                variant: None,
                is_assumed: false,
            });
        }
        let evidence = match folder.variant() {
            None => evidence::of(folder)?,
            given => given,
        };
        if let Some(variant) = evidence {
            return Ok(match known {
                // A later model has the roles of ChatGLM3, too.
                Some(known) if variant == Variant::ChatGlm3 && known.variant.is_none() => {
                    Self { name: Some(known.name), variant: None, is_assumed: false }
                }
                known => {
                    let known = known.filter(|known| known.variant == Some(variant));
                    let known = known.or_else(|| Known::named(variant.name()));
                    let name = known.map(|known| known.name);
                    Self { name, variant: Some(variant), is_assumed: false }
                }
            });
        }
        // A folder around the model may be called after anything: there only a name that decides counts.
        let near = names::written(folder)?.into_iter().chain(names::own(folder));
        let near = near.into_iter().find_map(|name| Known::named(&name));
        let known = near.or(known.filter(|known| known.variant.is_some()));
        if let Some(known) = known {
            return Ok(Self { name: Some(known.name), variant: known.variant, is_assumed: false });
        }
        let config = folder.json(CONFIG)?;
        Ok(Self::by_size(config.get("rope_ratio"), config.get("seq_length")))
    }

    /// By sizes that were published: ChatGLM2-6B-32K has a `rope_ratio` of 16, ChatGLM3-6B-32K and -128K of 50 and 500, and among
    /// models without one ChatGLM2-6B has a `seq_length` of 32768, ChatGLM3-6B of 8192. Others are ChatGLM3.
    fn by_size(rope_ratio: Option<&Value>, seq_length: Option<&Value>) -> Self {
        let number = |value: Option<&Value>| value.and_then(Value::as_f64);
        let (variant, is_assumed) = match (number(rope_ratio), number(seq_length)) {
            (Some(16.0), _) => (Variant::ChatGlm2, false),
            (Some(50.0 | 500.0), _) => (Variant::ChatGlm3, false),
            (None | Some(1.0), Some(32768.0)) => (Variant::ChatGlm2, true),
            _ => (Variant::ChatGlm3, true),
        };
        let known = Known::named(variant.name());
        Self { name: known.map(|known| known.name), variant: Some(variant), is_assumed }
    }
}

/// The name that `config.json` of a copy needs, so that the copy is taken for the same model without the other files and the name of the
/// folder. `None` if its own names say the same.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn name_for_copy(folder: &ModelDir) -> Result<Option<String>> {
    let written = names::written(folder)?;
    let own = names::own(folder);
    let tells = |name: &&String| tells(name);
    let identity = match folder.has(TOKENIZER_MODEL) {
        true => Some(Identity::of(folder)?).filter(|identity| !identity.is_assumed),
        false => None,
    };
    let Some(variant) = identity.and_then(|identity| identity.variant) else {
        let is_told = written.iter().any(|name| self::tells(name));
        return Ok(own.iter().find(tells).filter(|_| !is_told).cloned());
    };
    let says = |name: &str| Known::named(name).and_then(|known| known.variant) == Some(variant);
    match written.iter().find(tells) {
        Some(name) if says(name) => Ok(None),
        _ => {
            let own = own.iter().find(|name| says(name)).cloned();
            Ok(Some(own.unwrap_or_else(|| variant.repository().to_owned())))
        }
    }
}

/// Whether the model is a base model, not trained for conversations. The first of the folder's names that tells decides.
///
/// # Errors
/// As [`ModelDir::json`].
pub(crate) fn is_base(folder: &ModelDir) -> Result<bool> {
    let names = [names::written(folder)?, names::own(folder)].concat();
    Ok(names.iter().find(|name| tells(name)).is_some_and(|name| is_base_name(name)))
}

/// Whether a name, in lower case, tells the model or that it is a base model.
fn tells(name: &str) -> bool {
    Known::named(name).is_some() || is_base_name(name)
}

/// Whether a name, in lower case, is that of a base model.
fn is_base_name(name: &str) -> bool {
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    // The base model of GLM-4 has no "base" in its name, hence the last two.
    name.contains("codegeex2")
        || words.any(|word| word == "base")
        || ["glm-4-9b", "glm-4-9b-hf"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::model_dir::ADDED_TOKENS;

    const ROLES: &str = r#"{"[gMASK]": 64790, "<|user|>": 64795}"#;
    const NO_ROLES: &str = r#"{"[gMASK]": 64790, "sop": 64792}"#;

    fn identity(config: &str, tokens: &str) -> (Option<&'static str>, Option<Variant>, bool) {
        let files = [(CONFIG, config.as_bytes()), (ADDED_TOKENS, tokens.as_bytes())];
        let Identity { name, variant, is_assumed } = Identity::of(&ModelDir::of(&files)).unwrap();
        (name, variant, is_assumed)
    }

    #[test]
    fn evidence_comes_before_names_and_names_before_sizes() {
        let (second, third) = (Some(Variant::ChatGlm2), Some(Variant::ChatGlm3));
        for (config, tokens, name, variant, is_assumed) in [
            (r#"{"_name_or_path": "THUDM/chatglm2-6b"}"#, ROLES, "ChatGLM3-6B", third, false),
            (r#"{"_name_or_path": "THUDM/chatglm3-6b"}"#, NO_ROLES, "ChatGLM2-6B", second, false),
            (r#"{"_name_or_path": "codegeex2-6b"}"#, NO_ROLES, "CodeGeeX2-6B", second, false),
            (r#"{"_name_or_path": "THUDM/glm-4-9b-chat"}"#, ROLES, "GLM-4", None, false),
            (
                r#"{"_name_or_path": "/data/chatglm2-6b/tuned/7"}"#,
                "{}",
                "ChatGLM2-6B",
                second,
                false,
            ),
            (
                r#"{"_name_or_path": "/hub/models--THUDM--chatglm2-6b/snapshots/0a1b"}"#,
                "{}",
                "ChatGLM2-6B",
                second,
                false,
            ),
            (
                r#"{"_name_or_path": "chatglm3", "rope_ratio": 16}"#,
                "{}",
                "ChatGLM3-6B",
                third,
                false,
            ),
            (r#"{"rope_ratio": 16, "seq_length": 32768}"#, "{}", "ChatGLM2-6B", second, false),
            (r#"{"rope_ratio": 50, "seq_length": 32768}"#, "{}", "ChatGLM3-6B", third, false),
            (r#"{"seq_length": 32768}"#, "{}", "ChatGLM2-6B", second, true),
            (r#"{"seq_length": 8192}"#, "{}", "ChatGLM3-6B", third, true),
            ("{}", "{}", "ChatGLM3-6B", third, true),
        ] {
            assert_eq!(identity(config, tokens), (Some(name), variant, is_assumed), "{config}");
        }
        let later = identity(r#"{"padded_vocab_size": 151552}"#, "{}");
        assert_eq!(later, (None, None, false));
    }

    #[test]
    fn the_caller_has_the_first_word() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(ADDED_TOKENS), ROLES).unwrap();
        let of = |variant| {
            let path = crate::ModelPath::from(dir.path()).of_variant(variant);
            Identity::of(&ModelDir::open(path).unwrap()).unwrap().variant
        };
        assert_eq!(of(Some(Variant::ChatGlm2)), Some(Variant::ChatGlm2));
        assert_eq!(of(None), Some(Variant::ChatGlm3));
    }

    #[test]
    fn a_copy_is_taken_for_the_same_model() {
        let dir = tempfile::tempdir().unwrap();
        for (folder, config, code, expected) in [
            ("chatglm2-6b", "{}", "", Some("chatglm2-6b")),
            ("a", r#"{"_name_or_path": "THUDM/chatglm2-6b"}"#, "", None),
            ("b", r#"{"_name_or_path": "x"}"#, "[Round {}]", Some("THUDM/chatglm2-6b")),
            ("c", r#"{"_name_or_path": "chatglm3"}"#, "[Round {}]", Some("THUDM/chatglm2-6b")),
            ("d", "{}", "", None),
            ("my-base", "{}", "", Some("my-base")),
        ] {
            let path = dir.path().join(folder);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(CONFIG), config).unwrap();
            std::fs::write(path.join(TOKENIZER_MODEL), "\u{1}").unwrap();
            std::fs::write(path.join("tokenization_chatglm.py"), code).unwrap();
            let name = name_for_copy(&ModelDir::open(&path).unwrap()).unwrap();
            assert_eq!(name.as_deref(), expected, "{folder}");
        }
    }
}
