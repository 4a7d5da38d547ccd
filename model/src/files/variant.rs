//! Models that share their kinds of files and are told apart by their names.

use crate::error::Result;
use crate::files::model_dir::ModelDir;

/// A member of the family.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// A part of its name, in lower case.
    part: &'static str,
    /// What it is called.
    pub(crate) name: &'static str,
    /// Whether it is ChatGLM2 or was trained on from it. Later ones can be given the same files, but have roles and
    /// read `rope_ratio` otherwise.
    pub(crate) is_chatglm2: bool,
}

const MEMBERS: [Variant; 9] = {
    const fn member(part: &'static str, name: &'static str, is_chatglm2: bool) -> Variant {
        Variant { part, name, is_chatglm2 }
    }
    [
        member("codegeex2", "CodeGeeX2-6B", true),
        member("chatglm2", "ChatGLM2-6B", true),
        member("chatglm3", "ChatGLM3-6B", false),
        member("glm-3", "ChatGLM3-6B", false),
        member("codegeex4", "CodeGeeX4-9B", false),
        member("glm-edge", "GLM-Edge", false),
        member("glm-z1", "GLM-Z1", false),
        member("glm4", "GLM-4", false),
        member("glm-4", "GLM-4", false),
    ]
};

impl Variant {
    /// Whose folder it is: the first of its names that says something.
    ///
    /// # Errors
    /// As [`ModelDir::names`].
    pub(crate) fn of(folder: &ModelDir) -> Result<Option<&'static Self>> {
        Ok(folder.names()?.iter().find_map(|name| Self::named(name)))
    }

    /// Whose name it is, in lower case.
    fn named(name: &str) -> Option<&'static Self> {
        MEMBERS.iter().find(|member| name.contains(member.part))
    }
}

/// Whether the first of a folder's names that says something says that the model was not trained for conversations.
///
/// # Errors
/// As [`ModelDir::names`].
pub(crate) fn is_base(folder: &ModelDir) -> Result<bool> {
    let names = folder.names()?;
    Ok(names.iter().find(|name| tells(name)).is_some_and(|name| is_base_name(name)))
}

/// Whether a name, in lower case, says anything about the model.
pub(crate) fn tells(name: &str) -> bool {
    Variant::named(name).is_some() || is_base_name(name)
}

/// Whether a name, in lower case, is that of a model which was not trained for conversations.
fn is_base_name(name: &str) -> bool {
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    // The last two are all that GLM-4's own is called.
    name.contains("codegeex2")
        || words.any(|word| word == "base")
        || ["glm-4-9b", "glm-4-9b-hf"].contains(&name)
}
