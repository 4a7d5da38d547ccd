//! Models with the same kinds of files, distinguished by their names.

use crate::error::Result;
use crate::files::model_dir::ModelDir;

/// A model whose name decides how its files are read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// A folder whose name contains this, in lower case, holds the variant.
    part: &'static str,
    /// The name for people.
    pub(crate) name: &'static str,
    /// Whether it is ChatGLM2 or trained from it. Later models can have the same files, but they have roles and a different
    /// meaning of `rope_ratio`.
    pub(crate) is_chatglm2: bool,
}

const VARIANTS: [Variant; 9] = {
    const fn variant(part: &'static str, name: &'static str, is_chatglm2: bool) -> Variant {
        Variant { part, name, is_chatglm2 }
    }
    [
        variant("codegeex2", "CodeGeeX2-6B", true),
        variant("chatglm2", "ChatGLM2-6B", true),
        variant("chatglm3", "ChatGLM3-6B", false),
        variant("glm-3", "ChatGLM3-6B", false),
        variant("codegeex4", "CodeGeeX4-9B", false),
        variant("glm-edge", "GLM-Edge", false),
        variant("glm-z1", "GLM-Z1", false),
        variant("glm4", "GLM-4", false),
        variant("glm-4", "GLM-4", false),
    ]
};

impl Variant {
    /// The variant in a folder, by the first of the folder's names that is one of a variant.
    ///
    /// # Errors
    /// As [`ModelDir::names`].
    pub(crate) fn of(folder: &ModelDir) -> Result<Option<&'static Self>> {
        Ok(folder.names()?.iter().find_map(|name| Self::named(name)))
    }

    /// The variant that a name, in lower case, belongs to.
    fn named(name: &str) -> Option<&'static Self> {
        VARIANTS.iter().find(|variant| name.contains(variant.part))
    }
}

/// Whether the model is a base model, not trained for conversations. The first of the folder's names that tells decides.
///
/// # Errors
/// As [`ModelDir::names`].
pub(crate) fn is_base(folder: &ModelDir) -> Result<bool> {
    let names = folder.names()?;
    Ok(names.iter().find(|name| tells(name)).is_some_and(|name| is_base_name(name)))
}

/// Whether a name, in lower case, tells the variant or that it is a base model.
pub(crate) fn tells(name: &str) -> bool {
    Variant::named(name).is_some() || is_base_name(name)
}

/// Whether a name, in lower case, is that of a base model.
fn is_base_name(name: &str) -> bool {
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    // The base model of GLM-4 has no "base" in its name, hence the last two.
    name.contains("codegeex2")
        || words.any(|word| word == "base")
        || ["glm-4-9b", "glm-4-9b-hf"].contains(&name)
}
